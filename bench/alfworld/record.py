"""Plays a game in the real TextWorld, with ALFWorld's names, and writes what it said: one JSON object a line, a `reset` and then a `step` for each command.

usage: record.py GAME [--script FILE] [--episodes 8] [--steps 40] [--seed 1]

The first episode plays the lines of the script, if there is one; the others are random: admissible commands, sometimes padded with white space, in
capitals or misspelt, and more looking around than chance would have. Needs textworld[pddl] 1.7.0 and alfworld 0.4.2 (see setup.sh)."""
import argparse
import json
import random

from alfworld.agents.environment.alfred_tw_env import AlfredDemangler
from textworld.core import EnvInfos
from textworld.envs.pddl import PddlEnv


def row(kind, state, **more):
    print(json.dumps({"type": kind, **more, "observation": state["feedback"], "admissible": state["admissible_commands"], "won": state["won"]}))


def chosen(rng, admissible):
    command, odd = rng.choice(admissible), rng.random()
    if odd < 0.05:
        return "  " + command + "\t"
    if odd < 0.08:
        return command.upper()
    if odd < 0.11:
        return command.replace(" ", "  ", 1)
    if odd < 0.3:
        return "look" if odd < 0.2 else "inventory"
    return command


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("game")
    parser.add_argument("--script")
    parser.add_argument("--episodes", type=int, default=8)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    env = AlfredDemangler(PddlEnv(EnvInfos(won=True, admissible_commands=True)))
    env.load(arguments.game)
    rng = random.Random(arguments.seed)
    script = open(arguments.script).read().splitlines() if arguments.script else None
    for episode in range(arguments.episodes):
        state = env.reset()
        row("reset", state)
        scripted = script if episode == 0 else None
        for i in range(len(scripted) if scripted else arguments.steps):
            command = scripted[i] if scripted else chosen(rng, state["admissible_commands"])
            state, score, done = env.step(command)
            row("step", state, command=command, score=score, done=done)


main()
