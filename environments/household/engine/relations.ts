/**
 * The objects of a problem and what is, or may become, true of them. Objects are numbered in the order of their ids (by code point), which is also the
 * order in which texts list them; atoms that can change are numbered as they are found. It refuses problems that explode.
 */
import { RatchetError } from '../../../core/errors.ts';
import { typePredicate } from './pddl.ts';
import type { Domain, Problem } from './pddl.ts';

/** Atoms of one game that can change; ALFWorld's games have up to 1,300. */
const MOST_ATOMS = 100_000;

export class Objects {
  /** Sorted by code point. */
  readonly ids: readonly string[];
  /** The declared type of each object. */
  readonly types: readonly string[];
  readonly #numbers: ReadonlyMap<string, number>;
  readonly #members = new Map<string, number[]>();
  readonly #masks = new Map<string, Uint8Array>();

  constructor(problem: Problem, parents: ReadonlyMap<string, string>) {
    const sorted = [...problem.objects].sort((a, b) => (a.name < b.name ? -1 : 1));
    this.ids = sorted.map((object) => object.name);
    this.types = sorted.map((object) => object.type);
    this.#numbers = new Map(this.ids.map((id, number) => [id, number]));
    this.types.forEach((type, number) => {
      for (const each of ancestors(type, parents)) {
        const members = this.#members.get(each);
        if (members === undefined) this.#members.set(each, [number]);
        else members.push(number);
      }
    });
  }

  /** The object's number, or undefined where none has this id. */
  number(id: string): number | undefined {
    return this.#numbers.get(id);
  }

  /** The objects of a type and its subtypes, ascending. */
  members(type: string): readonly number[] {
    return this.#members.get(type) ?? [];
  }

  /** 1 for every object of the type or a subtype. */
  mask(type: string): Uint8Array {
    let mask = this.#masks.get(type);
    if (mask === undefined) {
      this.#masks.set(type, (mask = new Uint8Array(this.ids.length)));
      for (const number of this.members(type)) mask[number] = 1;
    }
    return mask;
  }
}

/** The type itself and all above it. */
function ancestors(type: string, parents: ReadonlyMap<string, string>): Set<string> {
  const out = new Set<string>();
  for (let each: string | undefined = type; each !== undefined && !out.has(each); each = parents.get(each)) out.add(each);
  return out;
}

/** All tuples of objects for which a predicate is true for ever (`fluent` false), or is or may become true (`fluent` true). */
export class Relation {
  readonly name: string;
  readonly fluent: boolean;
  readonly arity: number;
  /** The tuples, one after the other. */
  readonly values: number[] = [];
  /** Row -> number of its atom; -1 in a relation that is not fluent. */
  readonly atoms: number[] = [];
  /** Position -> object -> the rows with this object there, ascending. */
  readonly rowsWith: number[][][];
  /** Position -> how many objects stand there in some row. */
  readonly distinct: number[];
  /** Rows that are true at the start. */
  trueAtStart = 0;
  readonly #rowOf = new Map<number, number>();
  readonly #objects: number;

  constructor(name: string, arity: number, fluent: boolean, objects: number) {
    this.name = name;
    this.arity = arity;
    this.fluent = fluent;
    this.#objects = objects;
    this.rowsWith = Array.from({ length: arity }, () => []);
    this.distinct = new Array<number>(arity).fill(0);
    if (objects ** arity > Number.MAX_SAFE_INTEGER)
      throw new RatchetError(
        'BadInput',
        `predicate "${name}": ${arity} arguments over ${objects} objects are more atoms than can be counted`,
      );
  }

  get size(): number {
    return this.atoms.length;
  }

  /** The row of a tuple, -1 where there is none. */
  row(tuple: ArrayLike<number>): number {
    return this.#rowOf.get(this.#key(tuple)) ?? -1;
  }

  /** Adds a tuple that is not there yet. */
  add(tuple: ArrayLike<number>, atom: number): void {
    const row = this.atoms.push(atom) - 1;
    this.#rowOf.set(this.#key(tuple), row);
    for (let i = 0; i < this.arity; i++) {
      const object = tuple[i] as number;
      this.values.push(object);
      const rowsWith = this.rowsWith[i] as number[][];
      const rows = rowsWith[object];
      if (rows === undefined) {
        rowsWith[object] = [row];
        this.distinct[i] = (this.distinct[i] as number) + 1;
      } else rows.push(row);
    }
  }

  #key(tuple: ArrayLike<number>): number {
    let key = 0;
    for (let i = 0; i < this.arity; i++) key = key * this.#objects + (tuple[i] as number);
    return key;
  }
}

/** All relations of one problem, and the atoms of those that are fluent. */
export class Relations {
  readonly objects: Objects;
  /** Atom -> is it true at the start? */
  readonly initial: number[] = [];
  /** Atom -> its relation. */
  readonly relationOf: Relation[] = [];
  /** Atom -> its row there. */
  readonly rowOf: number[] = [];
  readonly #relations = new Map<string, Relation>();
  readonly #fluents: ReadonlySet<string>;

  constructor(domain: Domain, fluents: ReadonlySet<string>, problem: Problem) {
    this.#fluents = fluents;
    this.objects = new Objects(problem, domain.types);
    const arities = new Map<string, number>();
    for (const [predicate, ...ids] of problem.initial as [string, ...string[]][]) {
      // Predicates that the domain does not declare are words for the texts only.
      const declared = domain.predicates.get(predicate) ?? arities.get(predicate) ?? ids.length;
      arities.set(predicate, declared);
      if (declared !== ids.length)
        throw new RatchetError('BadInput', `problem: (${predicate} ${ids.join(' ')}) has ${ids.length} arguments, not ${declared}`);
      const tuple = ids.map((id) => this.objects.number(id) as number);
      const relation = this.relation(predicate, declared);
      if (relation.row(tuple) < 0) this.add(relation, tuple, true);
    }
  }

  /** The relation of a predicate; empty where nothing is known of it. */
  relation(name: string, arity: number): Relation {
    let relation = this.#relations.get(name);
    if (relation === undefined) {
      relation = new Relation(name, arity, this.#fluents.has(name), this.objects.ids.length);
      this.#relations.set(name, relation);
      if (name === '=') for (let o = 0; o < this.objects.ids.length; o++) relation.add([o, o], -1);
      if (name.startsWith(typePredicate('')))
        for (const o of this.objects.members(name.slice(typePredicate('').length))) relation.add([o], -1);
    }
    return relation;
  }

  /** The relation of this name, if any fact or rule has one. */
  known(name: string): Relation | undefined {
    return this.#relations.get(name);
  }

  add(relation: Relation, tuple: ArrayLike<number>, initially: boolean): void {
    if (initially) relation.trueAtStart++;
    if (!relation.fluent) return relation.add(tuple, -1);
    if (this.initial.length >= MOST_ATOMS) throw new RatchetError('BadInput', `the game has more than ${MOST_ATOMS} atoms that can change`);
    const atom = this.initial.push(initially ? 1 : 0) - 1;
    this.relationOf.push(relation);
    this.rowOf.push(relation.size);
    relation.add(tuple, atom);
  }

  /** `inreceptacle mug1 shelf2`. */
  nameOf(atom: number): string {
    const relation = this.relationOf[atom] as Relation;
    const from = (this.rowOf[atom] as number) * relation.arity;
    return [relation.name, ...relation.values.slice(from, from + relation.arity).map((o) => this.objects.ids[o])].join(' ');
  }
}
