/**
 * What a domain's actions and goals are for an engine: conjunctions over numbered variables, one per way in which a formula can hold. Made once per
 * domain; nothing here knows a problem's objects.
 */
import { RatchetError } from '../../../core/errors.ts';
import { memo } from './memo.ts';
import { disjuncts } from './normal-form.ts';
import type { Conjunction } from './normal-form.ts';
import { readDomain } from './pddl.ts';
import type { Domain, Formula, Operator, Typed } from './pddl.ts';

/** A literal whose terms are variables (their number) or objects (their id). */
export interface CompiledLiteral {
  negated: boolean;
  predicate: string;
  terms: readonly (number | string)[];
}

/** For some value of its variables, all literals hold. */
export interface CompiledConjunction {
  variables: readonly Typed[];
  literals: readonly CompiledLiteral[];
}

export interface CompiledEffect {
  /** Variables of its own are numbered after those of the action. */
  variables: readonly Typed[];
  condition: readonly CompiledLiteral[];
  negated: boolean;
  predicate: string;
  terms: readonly (number | string)[];
}

/** One way in which an action's precondition can hold. */
export interface Variant {
  operator: Operator;
  /** The action's place in the domain. */
  index: number;
  precondition: CompiledConjunction;
  effects: readonly CompiledEffect[];
}

const numbered = (variables: readonly Typed[]): ReadonlyMap<string, number> => new Map(variables.map(({ name }, number) => [name, number]));

function compiled(literals: Conjunction['literals'], numbers: ReadonlyMap<string, number>, what: string): CompiledLiteral[] {
  return literals.map(({ negated, predicate, terms }) => ({ negated, predicate, terms: termsOf(terms, numbers, what) }));
}

const termsOf = (terms: readonly string[], numbers: ReadonlyMap<string, number>, what: string): (number | string)[] =>
  terms.map((term) => (term.startsWith('?') ? (numbers.get(term) ?? refuse(`${what}: the variable ${term} is not bound`)) : term));

/** A domain, ready to be played over many problems. */
export interface Rules {
  domain: Domain;
  variants: readonly Variant[];
  /** The predicates that some action changes; all others keep their initial truth for ever. */
  fluents: ReadonlySet<string>;
}

/** Domains that are kept: a data set has one or a few. */
const KEPT_DOMAINS = 16;

/** Reads a domain. Throws RatchetError('BadInput') that names what is wrong or unknown. */
export const readRules = memo(KEPT_DOMAINS, (text): Rules => {
  const domain = readDomain(text);
  return {
    domain,
    variants: variantsOf(domain),
    fluents: new Set(domain.operators.flatMap((operator) => operator.effects.map((effect) => effect.predicate))),
  };
});

function refuse(what: string): never {
  throw new RatchetError('BadInput', what);
}

/** The variants of all actions. */
function variantsOf(domain: Domain): Variant[] {
  return domain.operators.flatMap((operator, index) => {
    const what = `action ${operator.name}`;
    const effects = operator.effects.flatMap((effect) => disjuncts(effect.condition, what).map((condition) => ({ effect, condition })));
    return disjuncts(operator.precondition, what).map(({ hidden, literals }): Variant => {
      const variables = [...operator.parameters, ...hidden];
      const numbers = numbered(variables);
      return {
        operator,
        index,
        precondition: { variables, literals: compiled(literals, numbers, what) },
        effects: effects.map(({ effect, condition }): CompiledEffect => {
          const own = [...effect.variables, ...condition.hidden];
          const all = new Map([...numbers, ...own.map(({ name }, i) => [name, variables.length + i] as const)]);
          return {
            variables: own,
            condition: compiled(condition.literals, all, what),
            negated: effect.negated,
            predicate: effect.predicate,
            terms: termsOf(effect.terms, all, what),
          };
        }),
      };
    });
  });
}

/** A formula without free variables, such as a goal. */
export function conjunctionsOf(formula: Formula, what: string): CompiledConjunction[] {
  return disjuncts(formula, what).map(({ hidden, literals }) => ({
    variables: hidden,
    literals: compiled(literals, numbered(hidden), what),
  }));
}
