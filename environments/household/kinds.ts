/** What a home is furnished with: the kinds of receptacles and objects, what can be done with them and where they usually lie. Data only. */

export interface ReceptacleKind {
  /** Can be opened and closed; starts closed. */
  openable: boolean;
  /** Things are put `in` it or `on` it. */
  preposition: 'in' | 'on';
}

/** Numbers of instances are drawn from 1..HIGHEST_NUMBER, so `mug 3` does not mean that there are three mugs. */
export const HIGHEST_NUMBER = 4;

export const RECEPTACLE_KINDS: Readonly<Record<string, ReceptacleKind>> = {
  bed: { openable: false, preposition: 'on' },
  cabinet: { openable: true, preposition: 'in' },
  countertop: { openable: false, preposition: 'on' },
  desk: { openable: false, preposition: 'on' },
  diningtable: { openable: false, preposition: 'on' },
  drawer: { openable: true, preposition: 'in' },
  dresser: { openable: false, preposition: 'on' },
  fridge: { openable: true, preposition: 'in' },
  garbagecan: { openable: false, preposition: 'in' },
  microwave: { openable: true, preposition: 'in' },
  safe: { openable: true, preposition: 'in' },
  shelf: { openable: false, preposition: 'on' },
  sinkbasin: { openable: false, preposition: 'in' },
  sofa: { openable: false, preposition: 'on' },
  stoveburner: { openable: false, preposition: 'on' },
};

/** Every home has these once. */
export const ALWAYS_ONCE = ['countertop', 'fridge', 'microwave', 'sinkbasin'] as const;
/** Every home has one or two of these. */
export const ONE_OR_TWO = ['cabinet', 'drawer'] as const;
/** A home has at most one of each of these. */
export const OPTIONAL = ['bed', 'desk', 'diningtable', 'dresser', 'garbagecan', 'safe', 'shelf', 'sofa', 'stoveburner'] as const;
/** Where the desk lamp may stand. */
export const LAMP_PLACES = ['countertop', 'desk', 'diningtable', 'dresser', 'shelf'] as const;
export const LAMP = 'desklamp';

export type ObjectClass = 'food' | 'kitchenware' | 'utensil' | 'washing' | 'leisure' | 'valuable' | 'seasoning';
/** What can be done with an object (ALFRED's affordances). */
export type Affordance = 'cleanable' | 'heatable' | 'coolable' | 'readable';

export interface ObjectKind {
  class: ObjectClass;
  affordances: readonly Affordance[];
  plural?: string;
}

/** Where objects of a class usually lie; also where tasks ask to put them. */
export const USUAL_PLACES: Readonly<Record<ObjectClass, readonly string[]>> = {
  food: ['countertop', 'diningtable', 'fridge', 'garbagecan', 'microwave', 'sinkbasin'],
  kitchenware: ['cabinet', 'countertop', 'diningtable', 'fridge', 'microwave', 'shelf', 'sinkbasin', 'stoveburner'],
  utensil: ['cabinet', 'countertop', 'diningtable', 'drawer', 'sinkbasin'],
  washing: ['cabinet', 'countertop', 'drawer', 'garbagecan', 'sinkbasin'],
  leisure: ['bed', 'desk', 'diningtable', 'drawer', 'dresser', 'shelf', 'sofa'],
  valuable: ['bed', 'desk', 'drawer', 'dresser', 'safe', 'shelf', 'sofa'],
  seasoning: ['cabinet', 'countertop', 'diningtable', 'drawer', 'shelf'],
};

const food = (...affordances: Affordance[]): ObjectKind => ({ class: 'food', affordances });
const kitchenware = (...affordances: Affordance[]): ObjectKind => ({ class: 'kitchenware', affordances });
const utensil: ObjectKind = { class: 'utensil', affordances: ['cleanable'] };
const washing: ObjectKind = { class: 'washing', affordances: ['cleanable'] };
const leisure: ObjectKind = { class: 'leisure', affordances: ['readable'] };
const valuable: ObjectKind = { class: 'valuable', affordances: ['readable'] };
const seasoning: ObjectKind = { class: 'seasoning', affordances: [] };

export const OBJECT_KINDS: Readonly<Record<string, ObjectKind>> = {
  apple: food('cleanable', 'heatable', 'coolable'),
  book: leisure,
  bowl: kitchenware('cleanable', 'heatable', 'coolable'),
  bread: food('heatable', 'coolable'),
  candle: leisure,
  cellphone: leisure,
  cloth: washing,
  creditcard: valuable,
  cup: kitchenware('cleanable', 'heatable', 'coolable'),
  dishsponge: washing,
  egg: food('cleanable', 'heatable', 'coolable'),
  fork: utensil,
  kettle: kitchenware('cleanable'),
  keychain: valuable,
  knife: { ...utensil, plural: 'knives' },
  laptop: leisure,
  lettuce: food('cleanable', 'coolable'),
  mug: kitchenware('cleanable', 'heatable', 'coolable'),
  pan: kitchenware('cleanable', 'coolable'),
  pen: leisure,
  peppershaker: seasoning,
  plate: kitchenware('cleanable', 'heatable', 'coolable'),
  pot: kitchenware('cleanable', 'coolable'),
  potato: { ...food('cleanable', 'heatable', 'coolable'), plural: 'potatoes' },
  remotecontrol: leisure,
  saltshaker: seasoning,
  soapbar: washing,
  spatula: utensil,
  spoon: utensil,
  tomato: { ...food('cleanable', 'heatable', 'coolable'), plural: 'tomatoes' },
  vase: leisure,
  watch: { ...valuable, plural: 'watches' },
};

export const pluralOf = (kind: string): string => OBJECT_KINDS[kind]?.plural ?? `${kind}s`;

/** The kind of a numbered entity: `mug 1` is a `mug`. */
export const kindOf = (name: string): string => name.slice(0, name.indexOf(' '));
