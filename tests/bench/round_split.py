#!/usr/bin/env python3
"""Where the time of a run's rounds went: medians over metrics.jsonl, in milliseconds and as shares of the round.

    round_split.py RUN_DIRECTORY

compute and encode are a slot's own (slots that share a worker take turns); wire is the mean time from asking for a contribution
until it is there; merge and commit are the coordinator's.
"""
import json
import statistics
import sys


def main():
    with open(sys.argv[1] + "/metrics.jsonl") as lines:
        rows = [json.loads(line)["seconds"] for line in lines]
    whole = statistics.median(row["round"] for row in rows)
    print(f"{len(rows)} rounds, median {1000 * whole:.1f} ms")
    for phase in ("compute", "encode", "wire", "merge", "commit"):
        values = [row[phase] for row in rows if phase in row]
        if values:
            value = statistics.median(values)
            print(f"  {phase:8} {1000 * value:10.2f} ms  {100 * value / whole:6.2f} %")


if __name__ == "__main__":
    main()
