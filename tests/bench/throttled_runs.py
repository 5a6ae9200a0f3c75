#!/usr/bin/env python3
"""Measured and simulated compute utilisation on imitated slow links: three methods at three bandwidths.

    tests/bench/throttled_runs.py build/ci/tessera [--out FOLDER] [--rounds R]

Runs `tessera train` with net.bandwidth on made-up text (unless FOLDER has the run already), takes utilisation, time
per step and time per merge from metrics.jsonl (medians over rounds without the first two, and without the last, which
also carries the slots' states for a checkpoint), and asks `tessera simulate` for the same recipe with that speed and
that work of the coordinator. Ends with 1 when a simulated utilisation is more than 15 % away from the measured one.
"""
import argparse
import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile

SHAPE = ["model.width=128", "model.layers=4", "model.heads=4", "model.context=64", "batch=8", "slots=2",
         "eval.every=0", "checkpoint.every=1000"]
METHODS = {
    "data_parallel": ["outer.name=data_parallel", "sync.steps=1", "partial.cut=none", "partial.slices=1"],
    "diloco": ["sync.steps=20", "partial.cut=none", "partial.slices=1"],
    "partial mlp+heads/2": ["sync.steps=20", "partial.cut=mlp+heads", "partial.slices=2"],
}


def command(tessera, name, *arguments):
    return subprocess.run([tessera, name, *arguments], check=True, capture_output=True, text=True).stdout


def settings(overrides):
    return [part for override in overrides for part in ("--set", override)]


def measure(tessera, recipe, out, overrides, rounds, mbits):
    if not (out / "metrics.jsonl").exists():
        command(tessera, "train", recipe, "--out", str(out), "--rounds", str(rounds), "--quiet",
                *settings([*overrides, f"net.bandwidth=[{mbits}]"]))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()][2:-1]
    steps = [statistics.mean(row["seconds"]["step_by_slot"]) for row in rows]
    return {
        "step": statistics.median(steps),
        "round": statistics.median(row["seconds"]["round"] for row in rows),
        "merge": statistics.median(row["seconds"]["merge"] + row["seconds"]["commit"] for row in rows),
        "flops": rows[0]["flops"],
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tessera")
    parser.add_argument("--out")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    recipe = str(pathlib.Path(__file__).resolve().parents[2] / "recipes" / "tiny.toml")
    out = pathlib.Path(options.out or tempfile.mkdtemp(prefix="tessera-throttled-"))
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(1)
    (out / "text").mkdir(exist_ok=True)
    (out / "text" / "words.txt").write_text(
        "\n".join(" ".join(rng.choice(["tile", "mosaic", "slice", "round"]) for _ in range(12)) for _ in range(4000)))
    worst = 0.0
    print(f"{'method':<22}{'Mbit/s':>8}{'step ms':>10}{'merge ms':>10}{'round s':>10}{'measured':>10}{'simulated':>11}{'off':>8}")
    for method, own in METHODS.items():
        for mbits in (10, 50, 200):
            overrides = [*SHAPE, *own, f"data.path={out / 'text'}"]
            steps = 1 if method == "data_parallel" else 20
            run = measure(options.tessera, recipe, out / f"{method.split()[0]}-{mbits}", overrides, options.rounds,
                          mbits)
            utilisation = steps * run["step"] / run["round"]
            gflops = run["flops"] / (2 * steps) / run["step"] / 1e9
            simulated = json.loads(command(options.tessera, "simulate", recipe, *settings(overrides), "--method",
                                           "recipe", "--bandwidth", f"{mbits}M", "--gflops", repr(gflops),
                                           "--merge-seconds", repr(run["merge"]), "--json"))
            predicted = simulated[0]["compute_utilisation"]
            off = predicted / utilisation - 1
            worst = max(worst, abs(off))
            print(f"{method:<22}{mbits:>8}{1e3 * run['step']:>10.1f}{1e3 * run['merge']:>10.1f}{run['round']:>10.2f}{100 * utilisation:>9.1f}%"
                  f"{100 * predicted:>10.1f}%{100 * off:>+7.1f}%", flush=True)
    return 0 if worst <= 0.15 else 1


if __name__ == "__main__":
    sys.exit(main())
