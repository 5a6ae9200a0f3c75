"""One slot, nothing cut, against the same model in PyTorch eager: same shapes, threads, optimizer and clipping, denormals
flushed on both sides, rounds alternating in one run. Needs the environment of tests/reference/make_venv.sh.

    compare_eager.py STEP_BENCH [--small | --large] [--rounds 15] [--steps 4] [--threads 1] [--check 1.0]

Prints median milliseconds per step of both and the median of the rounds' ratios (eager / Tessera: above 1, Tessera is
faster), by wall clock and by CPU time (which other load on the machine disturbs less); with --check, exits 1 when the wall
clock's ratio is below. The batch's tokens are made inside the timed step on both sides.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn
from torch.nn import functional

SHAPES = {
    "small": dict(vocab=256, width=128, heads=4, layers=4, context=256, batch=8),
    "large": dict(vocab=4096, width=256, heads=8, layers=6, context=256, batch=8),
}

WORKER_TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296"


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, w = x.shape
        q, k, v = (p.view(b, t, self.heads, -1).transpose(1, 2) for p in self.qkv(self.norm1(x)).split(w, dim=-1))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(b, t, w))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.tokens = nn.Embedding(shape["vocab"], shape["width"])
        self.positions = nn.Embedding(shape["context"], shape["width"])
        self.blocks = nn.ModuleList(Block(shape["width"], shape["heads"]) for _ in range(shape["layers"]))
        self.norm = nn.LayerNorm(shape["width"])
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, tokens):
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return functional.linear(self.norm(x), self.tokens.weight)


class Eager:
    def __init__(self, shape):
        torch.manual_seed(1)
        self.shape, self.model = shape, Gpt(shape)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=4e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def step(self):
        size = (self.shape["batch"], self.shape["context"])
        tokens, targets = (torch.randint(self.shape["vocab"], size) for _ in range(2))
        self.optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(self.model(tokens).flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def run(self, steps):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.step()
        return [1000 / steps * spent for spent in (time.perf_counter() - wall, time.process_time() - cpu)]


class Tessera:
    def __init__(self, program, shape, threads):
        arguments = [str(shape[k]) for k in ("vocab", "width", "heads", "layers", "context", "batch")]
        # As launch/run_processes.cpp starts a worker. To give eager the same, set GLIBC_TUNABLES for this script.
        environment = dict({"GLIBC_TUNABLES": WORKER_TUNABLES}, **os.environ, OMP_NUM_THREADS=str(threads))
        self.process = subprocess.Popen(
            [program, *arguments, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        wall, cpu, _loss = self.process.stdout.readline().split()
        return [float(wall), float(cpu)]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--large", dest="shape", action="store_const", const="large", default="small")
    parser.add_argument("--small", dest="shape", action="store_const", const="small")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", type=float)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    shape = SHAPES[options.shape]
    sides = {"eager": Eager(shape), "tessera": Tessera(options.program, shape, options.threads)}
    times = {name: [] for name in sides}
    for round_number in range(-1, options.rounds):  # the first warms up
        for name, side in sides.items():
            measured = side.run(options.steps)
            if round_number >= 0:
                times[name].append(measured)
    tokens = shape["batch"] * shape["context"]
    print(f"{options.shape}: {shape}, {options.threads} thread(s), fp32")
    ratios = {}
    for clock, label in enumerate(("wall clock", "CPU time")):
        medians = {name: statistics.median(m[clock] for m in measured) for name, measured in times.items()}
        rounds = [e[clock] / t[clock] for e, t in zip(times["eager"], times["tessera"])]
        ratios[label] = statistics.median(rounds)
        for name, median in medians.items():
            print(f"{label:10}  {name:7} {median:8.1f} ms/step {tokens / median * 1000:8.0f} tokens/s")
        print(f"{label:10}  ratio   {ratios[label]:8.3f}   from {min(rounds):.2f} to {max(rounds):.2f}")
    ratio = ratios["wall clock"]
    sys.exit(1 if options.check is not None and ratio < options.check else 0)


if __name__ == "__main__":
    main()
