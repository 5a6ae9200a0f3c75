#!/usr/bin/python3
"""Recomputes state_digest of comm/hash.h from safetensors files: state_hash.py [-v] FILE...   (needs python3-xxhash)

The digest of a tensor is xxh3-128 over name, 0, dtype, 0, rank and dimensions (8 bytes each, little endian), data; that of a
state is xxh3-128 over the digests of its tensors in order of their names, each as high and low word, little endian."""
import json, struct, sys
from pathlib import Path
from xxhash import xxh3_128


def words(digest):
    return struct.pack("<QQ", digest >> 64, digest & (2**64 - 1))


def state_digest(paths, verbose=False):
    digests = {}
    for path in paths:
        file = Path(path).read_bytes()
        start = 8 + struct.unpack("<Q", file[:8])[0]
        for name, t in json.loads(file[8:start]).items():
            if name != "__metadata__":
                begin, end = t["data_offsets"]
                head = f"{name}\0{t['dtype']}\0".encode() + struct.pack(f"<{1 + len(t['shape'])}Q", len(t["shape"]), *t["shape"])
                digests[name] = xxh3_128(head + file[start + begin:start + end]).intdigest()
    state = xxh3_128()
    for name, digest in sorted(digests.items()):
        state.update(words(digest))
        if verbose:
            print(f"{digest:032x}  {name}")
    return state.intdigest()


if __name__ == "__main__":
    print(f"{state_digest([a for a in sys.argv[1:] if a != '-v'], '-v' in sys.argv):032x}")
