#!/usr/bin/env python3
"""Jane Austen's six novels out of Debian's r-cran-janeaustenr, without R.

usage: austen_extract.py PACKAGE_DATA_DIR TARGET_DIR

PACKAGE_DATA_DIR holds Rdata.rdx and Rdata.rdb, R's lazy-load database: the .rdx is a gzipped R object that lists
each variable's (offset, length) in the .rdb, where it lies as a big-endian length and a compressed R object. Objects
are in R's serialization format, XDR flavour (R Internals, section 1.8); only the kinds that occur here are read.
"""
import bz2
import gzip
import lzma
import os
import struct
import sys
import zlib

from corpus_files import write_whole

NOVELS = [  # by year of publication; the last one is held out
    ("sensesensibility", "Sense and Sensibility", 1811),
    ("prideprejudice", "Pride and Prejudice", 1813),
    ("mansfieldpark", "Mansfield Park", 1814),
    ("emma", "Emma", 1815),
    ("northangerabbey", "Northanger Abbey", 1817),
    ("persuasion", "Persuasion", 1817),
]
HELD_OUT = "persuasion"
EXPECTED_WORDS = 717_537   # in all, counted on version 1.0.0 of the package
TOLERANCE = 0.01           # another version may mend a few lines, not lose a chapter


class Unserializer:
    """Reads one R object: vectors become lists, pair lists become dicts by tag."""

    NIL, REFERENCE = 0xFE, 0xFF
    SYMBOL, PAIRS, CHARS, LOGICAL, INTEGER, REAL, STRINGS, VECTOR = 1, 2, 9, 10, 13, 14, 16, 19

    def __init__(self, data):
        self.data, self.at, self.symbols = data, 0, []
        if self.take(2) != b"X\n":
            raise ValueError("not an R object in XDR format")
        version = self.integer()
        self.take(8)                                  # versions of the writer and of the oldest reader
        if version == 3:
            self.take(self.integer())                 # name of the native encoding
        elif version != 2:
            raise ValueError(f"R serialization version {version} is unknown")

    def take(self, count):
        piece = self.data[self.at:self.at + count]
        if len(piece) < count:
            raise ValueError("an R object is cut short")
        self.at += count
        return piece

    def integer(self):
        return struct.unpack(">i", self.take(4))[0]

    def vector(self, code, size):
        count = self.integer()
        return list(struct.unpack(f">{count}{code}", self.take(count * size)))

    def item(self):
        """An object and its attributes."""
        flags = self.integer()
        kind = flags & 0xFF
        if kind == self.NIL:
            return None, {}
        if kind == self.REFERENCE:
            index = flags >> 8 or self.integer()
            return self.symbols[index - 1], {}
        if kind == self.SYMBOL:
            self.symbols.append(self.item()[0])
            return self.symbols[-1], {}
        if kind == self.CHARS:
            length = self.integer()
            return (None if length < 0 else self.take(length).decode("utf-8", "replace")), {}
        if kind == self.PAIRS:
            return self.pairs(flags), {}
        if kind in (self.LOGICAL, self.INTEGER):
            value = self.vector("i", 4)
        elif kind == self.REAL:
            value = self.vector("d", 8)
        elif kind in (self.STRINGS, self.VECTOR):
            value = [self.item() for _ in range(self.integer())]
            if kind == self.STRINGS:
                value = [text for text, _ in value]
        else:
            raise ValueError(f"R object of unexpected kind {kind}")
        return value, (self.item()[0] or {}) if flags & 0x200 else {}

    def pairs(self, flags):
        """A pair list, cell by cell (no recursion along the list)."""
        found = {}
        while flags & 0xFF == self.PAIRS:
            if flags & 0x200:
                self.item()
            tag = self.item()[0] if flags & 0x400 else str(len(found))
            found[tag] = self.item()[0]
            flags = self.integer()
        return found


def decompress(chunk, kind):
    """One entry of the .rdb: length, then (kinds 2 and 3) a letter for the method, then the stream."""
    if kind == 1:
        return zlib.decompress(chunk[4:])
    method, stream = chunk[4:5], chunk[5:]
    if method == b"2":
        return bz2.decompress(stream)
    if method == b"Z":
        filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
        return lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters).decompress(stream)
    return stream


def named(item):
    """{name: (object, attributes)} of a named R list."""
    values, attributes = item
    return dict(zip(attributes["names"], values))


def read_variables(folder):
    """{name: lines} of the package's data sets."""
    with gzip.open(os.path.join(folder, "Rdata.rdx")) as file:
        index = named(Unserializer(file.read()).item())
    with open(os.path.join(folder, "Rdata.rdb"), "rb") as file:
        database = file.read()
    kind = int(index["compressed"][0][0])
    variables = {}
    for name, ((offset, length), _) in named(index["variables"]).items():
        variables[name] = Unserializer(decompress(database[offset:offset + length], kind)).item()[0]
    return variables


def paragraphs(lines):
    """Joins the hard-wrapped lines of each paragraph: one line each, chapter headings included. The underscores
    that mark emphasis in some of the novels go, since others have none."""
    found, current = [], []
    for line in lines + [""]:
        line = " ".join((line or "").replace("_", "").split())
        if line:
            current.append(line)
        elif current:
            found.append(" ".join(current))
            current = []
    return found


def words_in(text):
    return len(text.split())


def readme(counts):
    def file_of(name):
        return "held_out.txt" if name == HELD_OUT else "train.txt"

    rows = "\n".join(f"| {title} ({year}) | {file_of(name)} | {counts[name]:,} |" for name, title, year in NOVELS)
    return f"""# Jane Austen's six novels

| novel | file | words |
|---|---|---|
{rows}
| all | | {sum(counts.values()):,} |

One paragraph a line, an empty line between paragraphs, UTF-8. Words are what white space separates.

Source: Debian package r-cran-janeaustenr (R package janeaustenr by Julia Silge, after Project Gutenberg), read by
data/corpora/austen_extract.py. Licence: the novels are in the public domain; the package around them is under
the MIT licence.
"""


def main(folder, target):
    variables = read_variables(folder)
    missing = [name for name, _, _ in NOVELS if name not in variables]
    if missing:
        held = ", ".join(sorted(variables))
        sys.exit(f"austen_extract.py: {folder} lacks {', '.join(missing)}; it holds {held}")
    texts = {name: "\n\n".join(paragraphs(variables[name])) + "\n\n" for name, _, _ in NOVELS}
    counts = {name: words_in(text) for name, text in texts.items()}
    total = sum(counts.values())
    if abs(total - EXPECTED_WORDS) > TOLERANCE * EXPECTED_WORDS:
        sys.exit(f"austen_extract.py: found {total:,} words where {EXPECTED_WORDS:,} are expected: the package's "
                 f"format has changed, or {folder} is damaged")
    os.makedirs(target, exist_ok=True)
    write_whole(os.path.join(target, "README.md"), readme(counts))
    write_whole(os.path.join(target, "held_out.txt"), texts[HELD_OUT])
    train = "".join(text for name, text in texts.items() if name != HELD_OUT)
    write_whole(os.path.join(target, "train.txt"), train)
    held_out = counts[HELD_OUT]
    print(f"austen: {total - held_out:,} words to train on (5 novels), {held_out:,} held out (Persuasion)")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except (OSError, ValueError, KeyError, zlib.error, EOFError) as error:
        sys.exit(f"austen_extract.py: cannot read {sys.argv[1]}: {error}")
