/**
 * What homes are furnished with: the kinds of receptacles and objects that ALFWorld knows, what can be done with them and where they usually lie. Small homes
 * use the core kinds; large ones use all. Data only.
 */

export interface ReceptacleKind {
  /** Can be opened and closed; starts closed. */
  openable: boolean;
  /** Things are put `in` it or `on` it. */
  preposition: 'in' | 'on';
}

/** Most things of one kind in a generated home. */
export const MOST_OF_A_KIND = 4;

const CORE_RECEPTACLES: Readonly<Record<string, ReceptacleKind>> = {
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

const surface: ReceptacleKind = { openable: false, preposition: 'on' };
const vessel: ReceptacleKind = { openable: false, preposition: 'in' };
const MORE_RECEPTACLES: Readonly<Record<string, ReceptacleKind>> = {
  armchair: surface,
  bathtubbasin: vessel,
  cart: surface,
  coffeemachine: surface,
  coffeetable: surface,
  handtowelholder: surface,
  laundryhamper: { openable: true, preposition: 'in' },
  ottoman: surface,
  sidetable: surface,
  toaster: surface,
  toilet: surface,
  toiletpaperhanger: surface,
  towelholder: surface,
  tvstand: surface,
};

export const RECEPTACLE_KINDS: Readonly<Record<string, ReceptacleKind>> = { ...CORE_RECEPTACLES, ...MORE_RECEPTACLES };

/** Every home has these once. */
export const ALWAYS_ONCE = ['countertop', 'fridge', 'microwave', 'sinkbasin'] as const;
/** Every home has one or two of these. */
export const ONE_OR_TWO = ['cabinet', 'drawer'] as const;
/** A home has at most one of each of these. */
export const CORE_OPTIONAL = ['bed', 'desk', 'diningtable', 'dresser', 'garbagecan', 'safe', 'shelf', 'sofa', 'stoveburner'] as const;
/** Where the desk lamp may stand. */
export const LAMP_PLACES = ['countertop', 'desk', 'diningtable', 'dresser', 'shelf', 'sidetable'] as const;
export const LAMP = 'desklamp';
/** Lamps that ALFWorld's tasks are about. */
export const LAMPS = [LAMP, 'floorlamp'] as const;

export type ObjectClass = 'food' | 'kitchenware' | 'utensil' | 'washing' | 'leisure' | 'valuable' | 'seasoning' | 'bathing' | 'soft';
/** What can be done with an object (ALFRED's affordances). */
export type Affordance = 'cleanable' | 'heatable' | 'coolable' | 'readable';

export interface ObjectKind {
  class: ObjectClass;
  affordances: readonly Affordance[];
  plural?: string;
}

/** What large homes are: one room as ALFWorld has them, with so many receptacles of each kind (least, most) and things of these classes. */
export interface RoomKind {
  receptacles: Readonly<Record<string, readonly [least: number, most: number]>>;
  classes: readonly ObjectClass[];
}

export const ROOMS: readonly RoomKind[] = [
  {
    receptacles: {
      cabinet: [3, 12],
      coffeemachine: [1, 1],
      countertop: [1, 3],
      diningtable: [0, 1],
      drawer: [2, 9],
      fridge: [1, 1],
      garbagecan: [1, 1],
      microwave: [1, 1],
      shelf: [0, 3],
      sidetable: [0, 1],
      sinkbasin: [1, 1],
      stoveburner: [2, 4],
      toaster: [1, 1],
    },
    classes: ['food', 'kitchenware', 'utensil', 'seasoning', 'washing'],
  },
  {
    receptacles: {
      bathtubbasin: [0, 1],
      cabinet: [1, 6],
      cart: [0, 1],
      countertop: [1, 2],
      drawer: [0, 4],
      garbagecan: [1, 1],
      handtowelholder: [1, 2],
      shelf: [0, 3],
      sidetable: [0, 1],
      sinkbasin: [1, 2],
      toilet: [1, 1],
      toiletpaperhanger: [1, 1],
      towelholder: [1, 1],
    },
    classes: ['bathing', 'washing'],
  },
  {
    receptacles: {
      armchair: [0, 1],
      bed: [1, 1],
      desk: [1, 2],
      drawer: [2, 8],
      dresser: [0, 1],
      garbagecan: [1, 1],
      laundryhamper: [0, 1],
      safe: [0, 1],
      shelf: [0, 6],
      sidetable: [0, 2],
    },
    classes: ['leisure', 'valuable', 'soft'],
  },
  {
    receptacles: {
      armchair: [1, 2],
      cabinet: [0, 4],
      coffeetable: [1, 2],
      diningtable: [0, 1],
      drawer: [0, 6],
      dresser: [0, 1],
      garbagecan: [1, 1],
      ottoman: [0, 1],
      safe: [0, 1],
      shelf: [0, 5],
      sidetable: [1, 3],
      sofa: [1, 1],
      tvstand: [0, 1],
    },
    classes: ['leisure', 'valuable', 'soft'],
  },
];

/** Where objects of a class usually lie; also where tasks ask to put them. */
export const USUAL_PLACES: Readonly<Record<ObjectClass, readonly string[]>> = {
  food: ['countertop', 'diningtable', 'fridge', 'garbagecan', 'microwave', 'sinkbasin'],
  kitchenware: ['cabinet', 'coffeemachine', 'countertop', 'diningtable', 'fridge', 'microwave', 'shelf', 'sinkbasin', 'stoveburner'],
  utensil: ['cabinet', 'countertop', 'diningtable', 'drawer', 'sinkbasin'],
  washing: ['bathtubbasin', 'cabinet', 'cart', 'countertop', 'drawer', 'garbagecan', 'shelf', 'sinkbasin', 'toilet'],
  leisure: [
    'armchair',
    'bed',
    'coffeetable',
    'desk',
    'diningtable',
    'drawer',
    'dresser',
    'ottoman',
    'shelf',
    'sidetable',
    'sofa',
    'tvstand',
  ],
  valuable: ['armchair', 'bed', 'coffeetable', 'desk', 'drawer', 'dresser', 'ottoman', 'safe', 'shelf', 'sidetable', 'sofa', 'tvstand'],
  seasoning: ['cabinet', 'countertop', 'diningtable', 'drawer', 'shelf', 'sidetable'],
  bathing: [
    'bathtubbasin',
    'cabinet',
    'countertop',
    'handtowelholder',
    'laundryhamper',
    'sidetable',
    'toilet',
    'toiletpaperhanger',
    'towelholder',
  ],
  soft: ['armchair', 'bed', 'ottoman', 'sofa'],
};

const food = (...affordances: Affordance[]): ObjectKind => ({ class: 'food', affordances });
const kitchenware = (...affordances: Affordance[]): ObjectKind => ({ class: 'kitchenware', affordances });
const utensil: ObjectKind = { class: 'utensil', affordances: ['cleanable'] };
const washing: ObjectKind = { class: 'washing', affordances: ['cleanable'] };
const leisure: ObjectKind = { class: 'leisure', affordances: ['readable'] };
const valuable: ObjectKind = { class: 'valuable', affordances: ['readable'] };
const seasoning: ObjectKind = { class: 'seasoning', affordances: [] };
const bathing: ObjectKind = { class: 'bathing', affordances: [] };
const soft: ObjectKind = { class: 'soft', affordances: ['readable'] };

const CORE_OBJECTS: Readonly<Record<string, ObjectKind>> = {
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

const MORE_OBJECTS: Readonly<Record<string, ObjectKind>> = {
  alarmclock: leisure,
  baseballbat: soft,
  basketball: soft,
  box: { ...leisure, plural: 'boxes' },
  butterknife: { ...utensil, plural: 'butterknives' },
  cd: valuable,
  glassbottle: kitchenware('cleanable'),
  handtowel: bathing,
  ladle: utensil,
  newspaper: leisure,
  papertowelroll: washing,
  pencil: leisure,
  pillow: soft,
  plunger: bathing,
  scrubbrush: bathing,
  soapbottle: washing,
  spraybottle: washing,
  statue: leisure,
  teddybear: soft,
  tennisracket: soft,
  tissuebox: { ...leisure, plural: 'tissueboxes' },
  toiletpaper: bathing,
  toiletpaperroll: bathing,
  towel: bathing,
  wateringcan: leisure,
  winebottle: kitchenware('coolable'),
};

export const OBJECT_KINDS: Readonly<Record<string, ObjectKind>> = { ...CORE_OBJECTS, ...MORE_OBJECTS };

export const classOf = (kind: string): ObjectClass => (OBJECT_KINDS[kind] as ObjectKind).class;

export type KindSet = 'core' | 'all';
export const isOf = (set: KindSet, kind: string): boolean =>
  set === 'all' || kind in CORE_OBJECTS || kind in CORE_RECEPTACLES || kind === LAMP;

export const pluralOf = (kind: string): string => OBJECT_KINDS[kind]?.plural ?? `${kind}s`;

/** The kind of a numbered entity: `mug 1` is a `mug`. */
export const kindOf = (name: string): string => name.slice(0, name.indexOf(' '));
