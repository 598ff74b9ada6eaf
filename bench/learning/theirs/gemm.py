"""PyTorch's matrix product as a contestant. Orders: prepare (threads), multiply (m, k, n, count)."""

import json
import resource
import sys
import time

import torch

for line in sys.stdin:
    order = json.loads(line)
    cpu, start = time.process_time(), time.perf_counter()
    answer = {}
    if order["order"] == "prepare":
        torch.set_num_threads(order["threads"])
    else:
        m, k, n = order["m"], order["k"], order["n"]
        a, b = torch.full((m, k), 0.5), torch.full((k, n), 0.5)
        best = float("inf")
        for _ in range(order["count"]):
            began = time.perf_counter()
            for _ in range(32):
                a @ b
            best = min(best, time.perf_counter() - began)
        answer["gflops"] = 2 * m * k * n * 32 / best / 1e9
    answer["seconds"] = time.perf_counter() - start
    answer["cpuSeconds"] = time.process_time() - cpu
    answer["peakBytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(answer), flush=True)
