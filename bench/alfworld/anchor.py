"""Random admissible play in the real TextWorld with ALFWorld's names; prints one JSON object with what was counted, in seconds of CPU and of wall time.

usage: anchor.py --steps N [--cached] GAME...

Every game is loaded, reset, and played for N steps, commands listed at each. With --cached three pure functions of the library keep their results, and what
nobody changes is copied no more; no output changes: reading a text, reading a condition, and the text of an action's command."""
import argparse
import copy
import functools
import json
import random
import time

from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
from textworld.core import EnvInfos
from textworld.envs.pddl import PddlEnv, textgen
from textworld.logic import Rule


def keep_results():
    read = functools.lru_cache(None)(textgen._parse_and_convert)
    textgen._parse_and_convert = lambda text, rule_name, trace=False: [copy.copy(symbol) for symbol in read(text, rule_name=rule_name)]
    Rule.parse_conjunctive_query = staticmethod(functools.lru_cache(None)(Rule.parse_conjunctive_query))
    derive = textgen.ContextSensitiveGrammar.derive
    commands = {}

    def derived(self, start, context={}):
        # Commands name what never moves or what they handle: their words do not depend on the state.
        if start.startswith("#"):
            return derive(self, start, context)
        key = (id(self), start, tuple(sorted((p.name, v.name) for p, v in context["mapping"].items())))
        if key not in commands:
            commands[key] = derive(self, start, context)
        return commands[key]

    textgen.ContextSensitiveGrammar.derive = derived

    def shallow(value):
        return [copy.copy(each) for each in value] if isinstance(value, list) else copy.copy(value)

    textgen.deepcopy = shallow


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("games", nargs="+")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--cached", action="store_true")
    arguments = parser.parse_args()
    if arguments.cached:
        keep_results()
    rng = random.Random(1)
    found = {"steps": 0, "commands": 0, "play_cpu": 0.0, "play_wall": 0.0, "load_cpu": [], "load_wall": []}
    for path in arguments.games:
        cpu, wall = time.process_time(), time.perf_counter()
        env = AlfredDemangler(PddlEnv(EnvInfos(won=True, admissible_commands=True)))
        env.load(path)
        state = env.reset()
        found["load_cpu"].append(time.process_time() - cpu)
        found["load_wall"].append(time.perf_counter() - wall)
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(arguments.steps):
            commands = state["admissible_commands"]
            found["commands"] += len(commands)
            state, _score, _done = env.step(rng.choice(commands))
            found["steps"] += 1
        found["play_cpu"] += time.process_time() - cpu
        found["play_wall"] += time.perf_counter() - wall
    print(json.dumps(found))


main()
