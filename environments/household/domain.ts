/**
 * The household domain as data: what there is, what can be done, and the words for it. Rules follow ALFWorld (one thing is carried at a time; heating,
 * cooling and cleaning need the appliance but no open door; `go to` where one already is does not exist); the words are our own.
 */
import { RECEPTACLE_KINDS, LAMP, OBJECT_KINDS } from './kinds.ts';
import type { GrammarText } from './grammar.ts';

export const DOMAIN_TEXT = `
(define (domain household)
  (:types
    room receptacle - place
    portable ${LAMP} - thing
    ${Object.keys(RECEPTACLE_KINDS).join(' ')} - receptacle
    ${Object.keys(OBJECT_KINDS).join(' ')} - portable)
  (:predicates
    (at ?p - place)                          ; where the agent is
    (stands ?r - receptacle ?h - room)
    (inside ?t - thing ?r - receptacle)      ; in or on
    (openable ?r - receptacle)
    (open ?r - receptacle)
    (holding ?o - portable)
    (handsfull)
    (cleanable ?o - portable) (heatable ?o - portable) (coolable ?o - portable)
    (clean ?o - portable) (hot ?o - portable) (cool ?o - portable)
    (lit ?l - ${LAMP}))

  (:action goto
    :parameters (?from - place ?r - receptacle)
    :precondition (and (at ?from) (not (= ?from ?r)))
    :effect (and (not (at ?from)) (at ?r)))
  (:action open
    :parameters (?r - receptacle)
    :precondition (and (openable ?r) (at ?r) (not (open ?r)))
    :effect (open ?r))
  (:action close
    :parameters (?r - receptacle)
    :precondition (and (openable ?r) (at ?r) (open ?r))
    :effect (not (open ?r)))
  (:action take
    :parameters (?o - portable ?r - receptacle)
    :precondition (and (at ?r) (inside ?o ?r) (not (handsfull)) (or (not (openable ?r)) (open ?r)))
    :effect (and (not (inside ?o ?r)) (holding ?o) (handsfull)))
  (:action move
    :parameters (?o - portable ?r - receptacle)
    :precondition (and (holding ?o) (at ?r) (or (not (openable ?r)) (open ?r)))
    :effect (and (inside ?o ?r) (not (holding ?o)) (not (handsfull))))
  (:action clean
    :parameters (?o - portable ?r - sinkbasin)
    :precondition (and (cleanable ?o) (holding ?o) (at ?r))
    :effect (clean ?o))
  (:action heat
    :parameters (?o - portable ?r - microwave)
    :precondition (and (heatable ?o) (holding ?o) (at ?r))
    :effect (and (hot ?o) (not (cool ?o))))
  (:action cool
    :parameters (?o - portable ?r - fridge)
    :precondition (and (coolable ?o) (holding ?o) (at ?r))
    :effect (and (cool ?o) (not (hot ?o))))
  (:action use
    :parameters (?l - ${LAMP} ?r - receptacle)
    :precondition (and (at ?r) (inside ?l ?r) (or (not (openable ?r)) (open ?r)))
    :effect (lit ?l))
  (:action examine
    :parameters (?o - portable)
    :precondition (holding ?o)
    :effect (and))
  (:action look
    :parameters (?r - receptacle)
    :precondition (at ?r)
    :effect (and))
  (:action lookaround
    :parameters (?h - room)
    :precondition (at ?h)
    :effect (and))
  (:action inventory
    :parameters ()
    :precondition ()
    :effect (and)))
`;

export const GRAMMAR_TEXT: GrammarText = {
  operators: {
    goto: { command: 'go to {r.name}', feedback: 'You arrive at {r.name}. #contents#' },
    open: { command: 'open {r.name}', feedback: 'You open the {r.name}. #contents#' },
    close: { command: 'close {r.name}', feedback: 'You close the {r.name}.' },
    take: { command: 'take {o.name} from {r.name}', feedback: 'You pick up the {o.name} from the {r.name}.' },
    move: { command: 'move {o.name} to {r.name}', feedback: 'You move the {o.name} to the {r.name}.' },
    clean: { command: 'clean {o.name} with {r.name}', feedback: 'You clean the {o.name} using the {r.name}.' },
    heat: { command: 'heat {o.name} with {r.name}', feedback: 'You heat the {o.name} using the {r.name}.' },
    cool: { command: 'cool {o.name} with {r.name}', feedback: 'You cool the {o.name} using the {r.name}.' },
    use: { command: 'use {l.name}', feedback: 'You turn on the {l.name}.' },
    examine: { command: 'examine {o.name}', feedback: '#quality#' },
    look: { command: 'look', feedback: 'You are facing the {r.name}. #contents#' },
    lookaround: { command: 'look', feedback: '#surroundings#' },
    inventory: { command: 'inventory', feedback: '#burden#' },
  },
  rules: {
    contents: [
      {
        condition: 'openable(r) & open(r)',
        text: "The {r.name} is open. In it, you see [{t.indefinite + ' ' + t.name | inside(t:thing, r)}].",
      },
      { condition: 'openable(r)', text: 'The {r.name} is closed.' },
      { text: "On the {r.name}, you see [{t.indefinite + ' ' + t.name | inside(t:thing, r)}]." },
    ],
    surroundings: [
      { text: "You are in the middle of a room. Around you, you see [{s.indefinite + ' ' + s.name | stands(s:receptacle, h:room)}]." },
    ],
    quality: [
      { condition: 'hot(o) & clean(o)', text: 'This is a hot and clean {o.name}.' },
      { condition: 'cool(o) & clean(o)', text: 'This is a cool and clean {o.name}.' },
      { condition: 'hot(o)', text: 'This is a hot {o.name}.' },
      { condition: 'cool(o)', text: 'This is a cool {o.name}.' },
      { condition: 'clean(o)', text: 'This is a clean {o.name}.' },
      { text: 'There is nothing special about the {o.name}.' },
    ],
    burden: [
      { condition: 'holding(o:portable)', text: "You are carrying: [{o.indefinite + ' ' + o.name | holding(o:portable)}]." },
      { text: 'You are not carrying anything.' },
    ],
  },
};
