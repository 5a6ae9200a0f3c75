#!/usr/bin/python3
"""Recomputes a round's state_hash from its checkpoint: chain_hash.py RUN ROUND   (needs python3-xxhash)

It is xxh3-128 over the state_hash of the round before (from metrics.jsonl), the digest of parameters and outer state, and the
digests of the slot states in slot order; each as high and low word, little endian (coordinator/ledger.h, state_hash.py)."""
import glob, json, sys
from pathlib import Path
from xxhash import xxh3_128
from state_hash import state_digest, words


def chain_hash(run, version):
    folder = f"{run}/checkpoints/{version:08}"
    rows = {row["round"]: row["state_hash"] for row in map(json.loads, Path(f"{run}/metrics.jsonl").read_text().splitlines())}
    link = xxh3_128(words(int(rows[version - 1], 16)))
    link.update(words(state_digest([f"{folder}/parameters.safetensors", f"{folder}/outer.safetensors"])))
    for slot in sorted(glob.glob(f"{folder}/slot-*.safetensors"), key=lambda path: (len(path), path)):
        link.update(words(state_digest([slot])))
    return link.hexdigest()


if __name__ == "__main__":
    print(chain_hash(sys.argv[1], int(sys.argv[2])))
