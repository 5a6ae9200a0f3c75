"""One step of a slot against the same model in PyTorch eager: same shapes, threads, optimizer and clipping, denormals flushed
on both sides, every variant a process of its own, rounds alternating in one run. Needs the environment of
tests/reference/make_venv.sh.

    compare_eager.py STEP_BENCH [--shape experiment] [--variants fast,fast/4,...] [--rounds 15] [--steps 4]
                     [--threads 1] [--check 1.2]

Variants: eager (PyTorch as it comes), tuned (with the allocator settings that workers get), autocast (tuned, bf16), and
Tessera's blocks: plain, fast, bf16 (fast with bf16 products). BLOCK/N owns only the first of N slices of cut mlp+heads, N = 0:
nothing of what is cut. Prints median milliseconds per step and the median of the rounds' ratios to `tuned`, by wall clock and
by CPU time (which other load on the machine disturbs less). With fast, fast/0 and fast/N it prints how much of the ideal saving
is reached: ideal is (1 - 1/N) of what owning the cut weights costs, fast - fast/0. With --check, exits 1 when the wall clock's
ratio of fast is below. The batch's tokens are made inside the timed step on both sides.
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
    "experiment": dict(vocab=256, width=128, heads=8, layers=4, context=128, batch=4),
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
    def __init__(self, shape, autocast):
        torch.manual_seed(1)
        self.shape, self.model, self.autocast = shape, Gpt(shape), autocast
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=4e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True
        )

    def step(self):
        size = (self.shape["batch"], self.shape["context"])
        tokens, targets = (torch.randint(self.shape["vocab"], size) for _ in range(2))
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            logits = self.model(tokens)
        loss = functional.cross_entropy(logits.float().flatten(0, 1), targets.flatten())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        return loss.item()

    def run(self, steps):
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            self.step()
        return [1000 / steps * spent for spent in (time.perf_counter() - wall, time.process_time() - cpu)]


def serve_eager(shape, threads, autocast):
    """Reads a number of steps per line and answers as step_bench does."""
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    side = Eager(shape, autocast)
    for line in sys.stdin:
        print(*side.run(int(line)), flush=True)


class Variant:
    def __init__(self, name, options):
        environment = dict(os.environ, OMP_NUM_THREADS=str(options.threads))
        if name != "eager":
            environment["GLIBC_TUNABLES"] = WORKER_TUNABLES  # as launch/run_processes.cpp starts a worker
        if name in ("eager", "tuned", "autocast"):
            serve = ["--serve", name, "--shape", options.shape, "--threads", str(options.threads)]
            command = [sys.executable, __file__, *serve, options.program]
        else:
            shape, (block, _, slices) = SHAPES[options.shape], name.partition("/")
            sizes = [str(shape[k]) for k in ("vocab", "width", "heads", "layers", "context", "batch")]
            command = [options.program, *sizes, str(options.threads), block, slices or "1"]
        self.name, self.times = name, []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def run(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return [float(number) for number in self.process.stdout.readline().split()[:2]]

    def median(self, clock):
        return statistics.median(time[clock] for time in self.times)


def ratios(base, variant, clock):
    return [b[clock] / v[clock] for b, v in zip(base.times, variant.times)]


def report(variants, tokens):
    base = variants.get("tuned") or next(iter(variants.values()))
    for clock, label in enumerate(("wall clock", "CPU time")):
        print(f"{label}; ratio to {base.name}")
        for variant in variants.values():
            median, of_rounds = variant.median(clock), ratios(base, variant, clock)
            print(
                f"  {variant.name:8} {median:8.1f} ms/step {tokens / median * 1000:8.0f} tokens/s   "
                f"{statistics.median(of_rounds):6.3f}   from {min(of_rounds):.2f} to {max(of_rounds):.2f}"
            )
        for name, variant in variants.items():
            block, _, slices = name.partition("/")
            if slices in ("", "0") or not {block, block + "/0"} <= set(variants):
                continue
            whole, none = variants[block], variants[block + "/0"]
            ideal = (1 - 1 / int(slices)) * (whole.median(clock) - none.median(clock))
            saved = whole.median(clock) - variant.median(clock)
            print(f"  {name} saves {saved:.1f} of ideally {ideal:.1f} ms: {100 * saved / ideal:.0f} %")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("--shape", choices=SHAPES, default="small")
    parser.add_argument("--variants", default="eager,tuned,autocast,plain,fast,fast/4,fast/0,bf16,bf16/4,bf16/0")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--check", type=float)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    if options.serve:
        serve_eager(shape, options.threads, options.serve == "autocast")
        return
    variants = {name: Variant(name, options) for name in options.variants.split(",")}
    for round_number in range(-1, options.rounds):  # the first warms up
        for variant in variants.values():
            measured = variant.run(options.steps)
            if round_number >= 0:
                variant.times.append(measured)
    print(f"{options.shape}: {shape}, {options.threads} thread(s)")
    report(variants, shape["batch"] * shape["context"])
    if options.check is not None:
        reached = statistics.median(ratios(variants["tuned"], variants["fast"], 0))
        sys.exit(1 if reached < options.check else 0)


if __name__ == "__main__":
    main()
