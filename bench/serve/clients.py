"""Plays against `ratchet env serve` as Python trainers do: with OpenEnv's own client, and with AgentGym's routes.

python clients.py URL PID OUT: writes what was seen as JSON to OUT. bench/serve/clients.ts starts the server and compares with the games themselves.
"""

import asyncio
import json
import os
import random
import sys
import time

import requests
from openenv.core import GenericEnvClient
from websockets.asyncio.client import connect

URL, PID, OUT = sys.argv[1], sys.argv[2], sys.argv[3]
EPISODES = 24
SESSIONS = 256
ROUNDS = 10
STEPS_ALONE = 4000
STEPS_TOGETHER = 16000
CLIENTS_TOGETHER = 64


def resident_mib():
    with open(f"/proc/{PID}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024


def cpu_seconds():
    with open(f"/proc/{PID}/stat") as stat:
        user, system = stat.read().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def seen(result):
    return {**result.observation, "reward": result.reward, "done": result.done}


async def openenv_episodes():
    """Whole episodes of random admissible play, one connection after the other."""
    episodes = []
    for index in range(EPISODES):
        draw = random.Random(index)
        async with GenericEnvClient(base_url=URL) as env:
            result = await env.reset(split="unseen", index=index)
            moments, commands = [seen(result)], []
            while not result.done:
                commands.append(draw.choice(result.observation["admissible_commands"]))
                result = await env.step({"command": commands[-1]})
                moments.append(seen(result))
            state = await env.state()
            assert state["step_count"] == len(commands), state
        episodes.append({"index": index, "commands": commands, "moments": moments})
    return episodes


def openenv_sync():
    """The synchronous client, and an error in the middle of an episode."""
    with GenericEnvClient(base_url=URL).sync() as env:
        env.reset(split="seen", index=1)
        env.step({"command": "look"})
        for wrong in ({"split": "nothing"}, {"index": -1}, {"seed": "one"}):
            try:
                env.reset(**wrong)
                raise AssertionError(f"{wrong} was taken")
            except RuntimeError as error:
                assert "VALIDATION_ERROR" in str(error), error
        assert env.step({"command": "inventory"}).observation["turn"] == 2
    return True


class AgentGymClient:
    """The calls that AgentGym's controller makes, with its assumptions: status 200, an id in every body, the last answer kept."""

    def __init__(self, base):
        self.base = base
        self.http = requests.Session()
        self.id = self.call("create", {})["id"]

    def call(self, route, body):
        answer = self.http.post(f"{self.base}/{route}", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def reset(self, game):
        return self.call("reset", {"id": self.id, "game": game, "world_type": "Text"})

    def step(self, action):
        return self.call("step", {"id": self.id, "action": action})

    def look_up(self, route):
        return self.http.get(f"{self.base}/{route}?id={self.id}", timeout=60).json()

    def close(self):
        return self.call("close", {"id": self.id})


def agentgym_episodes():
    episodes = []
    client = AgentGymClient(URL)
    for game in range(EPISODES):
        draw = random.Random(game)
        answer = {**client.reset(game), "reward": 0, "done": False}
        moments, commands = [answer], []
        while not answer["done"]:
            commands.append(draw.choice(answer["available_actions"]))
            answer = client.step(commands[-1])
            moments.append(answer)
        assert client.look_up("observation") == answer["observation"]
        assert "error" in client.step("look")
        episodes.append({"game": game, "commands": commands, "moments": moments, "task": client.look_up("detail")["task"]})
    client.close()
    return episodes


async def rounds_of_sessions():
    """Rounds of many sessions at once, half of them torn down without a close frame; the resident memory of the server after each round."""
    memory = []
    for _ in range(ROUNDS):
        sockets = await asyncio.gather(*(connect(URL.replace("http", "ws") + "/ws") for _ in range(SESSIONS)))

        async def play(socket, index):
            await socket.send(json.dumps({"type": "reset", "data": {"split": "train", "index": index}}))
            assert json.loads(await socket.recv())["type"] == "observation"
            await socket.send(json.dumps({"type": "step", "data": {"command": "look"}}))
            assert json.loads(await socket.recv())["type"] == "observation"

        await asyncio.gather(*(play(socket, index) for index, socket in enumerate(sockets)))
        try:
            async with GenericEnvClient(base_url=URL) as env:
                await env.reset()
            raise AssertionError("a session beyond the bound was given")
        except RuntimeError as error:
            assert "CAPACITY_REACHED" in str(error), error
        for index, socket in enumerate(sockets):
            if index % 2 == 0:
                socket.transport.abort()
            else:
                await socket.send(json.dumps({"type": "close"}))
        await asyncio.gather(*(socket.wait_closed() for socket in sockets))
        end = time.monotonic() + 10
        while requests.get(f"{URL}/state", timeout=10).json()["active_sessions"] > 0:
            assert time.monotonic() < end, "sessions are left"
            await asyncio.sleep(0.01)
        memory.append(round(resident_mib(), 1))
    return memory


async def speed(clients, steps):
    """Steps per second over WebSocket, all clients together, and the CPU microseconds of the server per step."""

    async def play(socket, share):
        left = share
        while left > 0:
            await socket.send(json.dumps({"type": "reset", "data": {"split": "train"}}))
            done = json.loads(await socket.recv())["data"]["done"]
            while not done and left > 0:
                await socket.send('{"type": "step", "data": {"command": "look"}}')
                done = json.loads(await socket.recv())["data"]["done"]
                left -= 1

    sockets = await asyncio.gather(*(connect(URL.replace("http", "ws") + "/ws") for _ in range(clients)))
    start, cpu = time.monotonic(), cpu_seconds()
    await asyncio.gather(*(play(socket, steps // clients) for socket in sockets))
    seconds, cpu = time.monotonic() - start, cpu_seconds() - cpu
    await asyncio.gather(*(socket.close() for socket in sockets))
    return {"steps_per_second": round(steps / seconds), "server_cpu_us": round(1e6 * cpu / steps)}


report = {
    "openenv": asyncio.run(openenv_episodes()),
    "openenv_sync": openenv_sync(),
    "agentgym": agentgym_episodes(),
    "memory_mib": asyncio.run(rounds_of_sessions()),
    "alone": asyncio.run(speed(1, STEPS_ALONE)),
    "together": asyncio.run(speed(CLIENTS_TOGETHER, STEPS_TOGETHER)),
}
with open(OUT, "w") as out:
    json.dump(report, out)
