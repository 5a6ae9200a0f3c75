#!/usr/bin/env python3
"""Synchronising about 100 MB of fp32 among workers on this host, beside gloo's all-reduce of the same bytes.

    merge_bench.py TESSERA [--workers 2,4] [--rounds 8] [--repeat 3] [--python VENV/bin/python] [--small] [--set A.B=C ...]

Tessera: `tessera train` with real processes and a light step (one short sequence, SGD), one merge a step, durability =
"process". A synchronisation lasts from the moment at which the last worker begins to push until the last one has adopted
the new version, as the processes' text logs say (TESSERA_LOG=debug, milliseconds). gloo: torch.distributed, one process per peer
and thread, barrier, then all_reduce of as many bytes; the slowest peer counts. It needs --python with PyTorch
(tests/reference/make_venv.sh); without it only Tessera is measured. Both alternate, --repeat times. Prints medians, their
ratio, and where the time went (medians of metrics.jsonl). --small takes a model of 1 MB, for the cost of many workers.
"""
import argparse
import collections
import datetime
import json
import os
import pathlib
import random
import re
import statistics
import subprocess
import sys
import tempfile

LARGE = ["model.width=512", "model.ffn=11100", "model.layers=2"]
SMALL = ["model.width=64", "model.layers=5"]
LIGHT = ["model.heads=1", "model.context=2", "batch=1", "sync.steps=1", "partial.cut=none", "partial.slices=1",
         "eval.every=0", "checkpoint.every=100000", "inner.name=sgd", "inner.lr=0.001"]

GLOO = """
import sys, time, torch, torch.distributed as dist
rank, world, path, rounds, count = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=world)
values, times = torch.ones(count), []
for _ in range(rounds + 2):
    dist.barrier()
    begin = time.perf_counter()
    dist.all_reduce(values)
    times.append(time.perf_counter() - begin)
    values.fill_(1)
dist.destroy_process_group()
print(*times[2:])
"""


def gloo(python, folder, workers, rounds, count):
    store = tempfile.mktemp(prefix="store-", dir=folder)
    peers = [subprocess.Popen([python, "-c", GLOO, str(rank), str(workers), store, str(rounds), str(count)],
                              stdout=subprocess.PIPE, text=True) for rank in range(workers)]
    times = [[float(value) for value in peer.communicate()[0].split()] for peer in peers]
    return [max(of_round) for of_round in zip(*times)]


def stamps(run, event):
    """version -> when the last worker said so."""
    last = collections.defaultdict(float)
    for log in pathlib.Path(run, "text").glob("worker-*"):
        for line in log.read_text().splitlines():
            found = re.match(r"(\S+ \S+)\.(\d+) .*" + event + r" (\d+)$", line)
            if found:
                second = datetime.datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").timestamp()
                last[int(found[3])] = max(last[int(found[3])], second + int(found[2]) / 1000)
    return last


def tessera(options, folder, workers, rounds):
    run = tempfile.mkdtemp(prefix=f"run-{workers}-", dir=folder)
    settings = [*(SMALL if options.small else LARGE), *LIGHT, f"slots={workers}", f"workers={workers}",
                f"data.path={folder}/text", *options.set]
    recipe = pathlib.Path(__file__).resolve().parents[2] / "recipes" / "tiny.toml"
    subprocess.run([options.tessera, "train", str(recipe), "--out", run, "--quiet", "--rounds", str(rounds + 2),
                    *(part for setting in settings for part in ("--set", setting))], check=True,
                   env={**os.environ, "TESSERA_LOG": "debug"}, stdout=subprocess.DEVNULL)
    pushed, adopted = stamps(run, "pushes from version"), stamps(run, "has adopted version")
    times = [adopted[v + 1] - pushed[v] for v in sorted(pushed) if v >= 1 and v + 1 in adopted]
    rows = [json.loads(line) for line in pathlib.Path(run, "metrics.jsonl").read_text().splitlines()][2:]
    return times, rows


def parts(rows):
    found = collections.defaultdict(list)
    for row in rows:
        for name, value in row["seconds"].items():
            if isinstance(value, dict):
                for part, seconds in value.items():
                    found[f"{name}: {part}"].append(seconds)
            elif isinstance(value, float):
                found[name].append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("tessera")
    parser.add_argument("--workers", default="2,4")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--python")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tessera-merge-") as folder:
        text = pathlib.Path(folder, "text")
        text.mkdir()
        letters = random.Random(1)
        for name, count in (("train.txt", 200_000), ("held_out.txt", 2000)):
            # No two batches alike: equal contributions would share a file, and writing it again replaces it.
            (text / name).write_text("".join(letters.choice("abcdefghij klmnopqrst uvwxyz.\n") for _ in range(count)))
        for workers in map(int, options.workers.split(",")):
            ours, theirs, rows = [], [], []
            for _ in range(options.repeat):
                times, of_run = tessera(options, folder, workers, options.rounds)
                ours += times
                rows += of_run
                size = of_run[0]["bytes_up"] // workers
                if options.python:
                    theirs += gloo(options.python, folder, workers, options.rounds, size // 4)
            line = f"{workers} workers, {size / 1e6:.1f} MB: {1e3 * statistics.median(ours):.0f} ms (best {1e3 * min(ours):.0f})"
            if theirs:
                line += (f"; gloo {1e3 * statistics.median(theirs):.0f} ms (best {1e3 * min(theirs):.0f}); "
                         f"ratio {statistics.median(ours) / statistics.median(theirs):.2f}")
            print(line)
            print("  " + ", ".join(f"{name} {1e3 * value:.1f}" for name, value in parts(rows).items()), flush=True)


if __name__ == "__main__":
    sys.exit(main())
