/**
 * The rules (PDDL) and the words (twl2) of generated games. Both go into every game file as text, where any engine for ALFWorld's format can read them. The
 * rules are ALFWorld's in substance: one thing is carried at a time, closed doors hide and block, appliances need no open door, and nothing
 * is full. Text and names are our own; `<kind>_bar_<number>` is what ALFWorld makes the name `<kind> <number>` of.
 */

export const DOMAIN_TEXT = `(define (domain household)
  (:requirements :adl :typing)
  (:types hand spot furniture thing sort)
  (:predicates
    (near ?p - spot)                     ; where the player stands
    (stands ?r - furniture ?p - spot)
    (lies ?o - thing ?r - furniture)     ; in or on
    (kind ?x - object ?k - sort)
    (shuttable ?r - furniture)
    (ajar ?r - furniture)
    (portable ?o - thing)
    (carries ?h - hand ?o - thing)
    (free ?h - hand)
    (washable ?o - thing) (warmable ?o - thing) (chillable ?o - thing) (switchable ?o - thing)
    (clean ?o - thing) (hot ?o - thing) (cool ?o - thing) (lit ?o - thing)
    (noticed ?x - object))                        ; makes looking an act

  (:action walk
    :parameters (?from - spot ?to - spot ?r - furniture)
    :precondition (and (near ?from) (stands ?r ?to))
    :effect (and (not (near ?from)) (near ?to)))
  (:action unshut
    :parameters (?p - spot ?r - furniture)
    :precondition (and (near ?p) (stands ?r ?p) (shuttable ?r) (not (ajar ?r)))
    :effect (ajar ?r))
  (:action shut
    :parameters (?p - spot ?r - furniture)
    :precondition (and (near ?p) (stands ?r ?p) (ajar ?r))
    :effect (not (ajar ?r)))
  (:action lift
    :parameters (?h - hand ?p - spot ?o - thing ?r - furniture)
    :precondition (and (free ?h) (near ?p) (stands ?r ?p) (lies ?o ?r) (portable ?o) (or (not (shuttable ?r)) (ajar ?r)))
    :effect (and (not (lies ?o ?r)) (carries ?h ?o) (not (free ?h))))
  (:action leave
    :parameters (?h - hand ?p - spot ?o - thing ?r - furniture)
    :precondition (and (carries ?h ?o) (near ?p) (stands ?r ?p) (or (not (shuttable ?r)) (ajar ?r)))
    :effect (and (lies ?o ?r) (not (carries ?h ?o)) (free ?h)))
  (:action wash
    :parameters (?h - hand ?p - spot ?o - thing ?r - furniture)
    :precondition (and (carries ?h ?o) (washable ?o) (near ?p) (stands ?r ?p) (kind ?r sinkbasintype))
    :effect (clean ?o))
  (:action warm
    :parameters (?h - hand ?p - spot ?o - thing ?r - furniture)
    :precondition (and (carries ?h ?o) (warmable ?o) (near ?p) (stands ?r ?p) (kind ?r microwavetype))
    :effect (and (hot ?o) (not (cool ?o))))
  (:action chill
    :parameters (?h - hand ?p - spot ?o - thing ?r - furniture)
    :precondition (and (carries ?h ?o) (chillable ?o) (near ?p) (stands ?r ?p) (kind ?r fridgetype))
    :effect (and (cool ?o) (not (hot ?o))))
  (:action switch
    :parameters (?p - spot ?o - thing ?r - furniture)
    :precondition (and (switchable ?o) (lies ?o ?r) (near ?p) (stands ?r ?p) (or (not (shuttable ?r)) (ajar ?r)))
    :effect (lit ?o))
  (:action inspect
    :parameters (?h - hand ?o - thing)
    :precondition (carries ?h ?o)
    :effect (noticed ?o))
  (:action survey
    :parameters (?p - spot)
    :precondition (near ?p)
    :effect (noticed ?p))
  (:action recall
    :parameters (?p - spot)
    :precondition (near ?p)
    :effect (noticed ?p)))
`;

/** All lists read alike: `a fork 1, and a mug 2`; of nothing, `nothing`. */
const listOf = (variable: string, condition: string): string => `[{${variable}.indefinite + ' ' + ${variable}.name | ${condition}}]`;
const CONTENT = listOf('t', 'lies(t:thing, r:furniture)');

interface Rule {
  condition?: string;
  rhs: string;
}

/** Rules of the grammar; of several under one name the first whose condition holds is said. */
const RULES: Readonly<Record<string, readonly Rule[]>> = {
  intro: [{ rhs: 'Welcome home.\n\n#surroundings#\n\n#task#' }],
  surroundings: [{ rhs: `You stand in the middle of a room. Around you there is ${listOf('s', 'stands(s:furniture, q:spot)')}.` }],
  sight: [
    { condition: 'shuttable(r:furniture) & ajar(r:furniture)', rhs: `It is open. Inside there is ${CONTENT}.` },
    { condition: 'shuttable(r:furniture)', rhs: 'It is shut.' },
    { rhs: `On it there is ${CONTENT}.` },
  ],
  survey: [{ condition: 'stands(r:furniture, p:spot)', rhs: '{#standing# | stands(r:furniture, p:spot)}' }, { rhs: '#surroundings#' }],
  standing: [{ rhs: 'You stand at the {r.name}. #sight#' }],
  quality: [
    { condition: 'hot(o:thing) & clean(o:thing)', rhs: 'The {o.name} is hot and clean.' },
    { condition: 'cool(o:thing) & clean(o:thing)', rhs: 'The {o.name} is cool and clean.' },
    { condition: 'hot(o:thing)', rhs: 'The {o.name} is hot.' },
    { condition: 'cool(o:thing)', rhs: 'The {o.name} is cool.' },
    { condition: 'clean(o:thing)', rhs: 'The {o.name} is clean.' },
    { rhs: 'The {o.name} looks as usual.' },
  ],
  burden: [
    { condition: 'carries(h:hand, o:thing)', rhs: `In your hands there is ${listOf('o', 'carries(h:hand, o:thing)')}.` },
    { rhs: 'Your hands are empty.' },
  ],
  list_empty: [{ rhs: 'nothing' }],
  list_separator: [{ rhs: ', ' }],
  list_last_separator: [{ rhs: ', and ' }],
};

/** Each action's command and what is said when it was done. */
const ACTIONS: Readonly<Record<string, { template: string; feedback: string }>> = {
  walk: { template: 'go to {r}', feedback: 'You walk to the {r.name}. #sight#' },
  unshut: { template: 'open {r}', feedback: 'You pull at the {r.name}. #sight#' },
  shut: { template: 'close {r}', feedback: 'You shut the {r.name}.' },
  lift: { template: 'take {o} from {r}', feedback: 'You take the {o.name} out of the {r.name}.' },
  leave: { template: 'move {o} to {r}', feedback: 'You leave the {o.name} at the {r.name}.' },
  wash: { template: 'clean {o} with {r}', feedback: 'You wash the {o.name} at the {r.name}.' },
  warm: { template: 'heat {o} with {r}', feedback: 'You warm the {o.name} at the {r.name}.' },
  chill: { template: 'cool {o} with {r}', feedback: 'You chill the {o.name} at the {r.name}.' },
  switch: { template: 'use {o}', feedback: 'You switch the {o.name} on.' },
  inspect: { template: 'examine {o}', feedback: '#quality#' },
  survey: { template: 'look', feedback: '#survey#' },
  recall: { template: 'inventory', feedback: '#burden#' },
};

const WRITTEN_RULES = (() => {
  const { intro, ...others } = RULES;
  return { head: JSON.stringify({ intro }).slice(1, -1), rest: JSON.stringify(others).slice(1, -1) };
})();
const WRITTEN_ACTIONS = Object.entries(ACTIONS)
  .map(([name, { template, feedback }]) => `action ${name} {\n  template :: "${template}";\n  feedback :: "${feedback}";\n}\n`)
  .join('\n');

/** The words of a game whose task is said by `instruction`, which must be free of the characters that mean something in a grammar: `;|"<>[]#{}` and backslash. */
export function grammarText(instruction: string): string {
  const task = JSON.stringify({ task: [{ rhs: `Your task is to: ${instruction}` }] }).slice(1, -1);
  return `grammar :: """\n{${WRITTEN_RULES.head},\n${task},\n${WRITTEN_RULES.rest}}\n""";\n\n${WRITTEN_ACTIONS}`;
}
