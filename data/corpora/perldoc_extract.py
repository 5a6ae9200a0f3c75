#!/usr/bin/env python3
"""Perl's documentation as plain text, out of Debian's perl-doc.

usage: perldoc_extract.py FOLDER_WITH_PODS TARGET_DIR

A .pod file is paragraphs: commands (=head1, =item, ...), indented ones that are code and stay as they are, and prose with
codes such as C<print> or L<perlop/"Quote-Like Operators">, which are replaced by what they show.
"""
import html
import os
import re
import sys

from corpus_files import write_whole

HELD_OUT = ("perlipc", "perlop", "perlretut", "perlsub")
# Generated tables, and translations into other languages; release notes (perl*delta) say again what the pages say.
LEFT_OUT = ("perltoc", "perluniprops", "perlcn", "perljp", "perlko", "perltw")
EXPECTED_BYTES = 4_925_000   # in all, as counted on version 5.36.0-7
TOLERANCE = 0.1              # point releases mend pages, they do not lose them

LESS, MORE = "\x01", "\x02"  # stand for < and > that are text and not part of a code
ENTITIES = {"lt": LESS, "gt": MORE, "verbar": "|", "sol": "/"}
SPACED = re.compile(r"([A-Z])(<{2,})\s+(.*?)\s+>{2,}", re.S)
PLAIN = re.compile(r"([A-Z])<([^<>]*)>")


def shown(kind, inside):
    """What a code shows of its inside."""
    if kind in "XZ":
        return ""                                     # an index entry; nothing
    if kind == "E":
        if inside in ENTITIES:
            return ENTITIES[inside]
        if inside.lower().startswith("0x"):
            return chr(int(inside, 16))
        return chr(int(inside)) if inside.isdigit() else html.unescape(f"&{inside};")
    if kind == "L":
        text = inside.split("|", 1)[0]
        return text.replace('"', "") if "|" in inside else text.strip("/").replace('"', "")
    return inside


def without_codes(text):
    text = SPACED.sub(lambda m: shown(m[1], m[3].replace("<", LESS).replace(">", MORE)), text)
    while True:
        text, count = PLAIN.subn(lambda m: shown(m[1], m[2]), text)
        if count == 0:
            return text.replace(LESS, "<").replace(MORE, ">")


def plain_text(pod):
    """The paragraphs of a pod as text, an empty line between them."""
    found, in_block = [], False
    for paragraph in re.split(r"\n[ \t]*\n", pod.replace("\r\n", "\n")):
        paragraph = paragraph.strip("\n")
        if not paragraph.strip():
            continue
        if paragraph.startswith("="):
            command, rest = re.match(r"=(\w*)\s*(.*)", paragraph, re.S).groups()
            in_block = command == "begin" or (in_block and command != "end")
            if not in_block and (command.startswith("head") or command == "item"):
                line = " ".join(without_codes(rest).split())
                if line and line != "*":
                    found.append(line)
        elif in_block:
            continue
        elif paragraph[0] in " \t":
            found.append("\n".join(line.rstrip() for line in paragraph.expandtabs().split("\n")))
        else:
            found.append(" ".join(without_codes(paragraph).split()))
    return "\n\n".join(found) + "\n\n"


def read_pages(folder):
    """{name: text} of the pages that are kept."""
    pages = {}
    for place, _, files in os.walk(folder):
        for file in files:
            name, end = os.path.splitext(file)
            if end == ".pod" and name not in LEFT_OUT and not name.endswith("delta"):
                with open(os.path.join(place, file), encoding="utf-8", errors="replace") as pod:
                    pages[name] = plain_text(pod.read())
    return pages


def readme(pages):
    held = ", ".join(f"{name} ({len(pages[name].split()):,} words)" for name in HELD_OUT)
    words = sum(len(text.split()) for text in pages.values())
    return f"""# The documentation of Perl

{len(pages)} pages, {words:,} words; held_out.txt is {held}, train.txt all others in order of their names.
Markup is gone, code is kept with its line breaks, a paragraph of prose is one line, UTF-8.

Source: Debian package perl-doc, read by data/corpora/perldoc_extract.py. Copyright 1987-2022 Larry Wall and others;
licence: the GPL or the Artistic License, as Perl itself.
"""


def main(folder, target):
    pages = read_pages(folder)
    missing = [name for name in HELD_OUT if name not in pages]
    if missing:
        sys.exit(f"perldoc_extract.py: {folder} lacks {', '.join(missing)}; it holds {len(pages)} pages")
    total = sum(len(text.encode()) for text in pages.values())
    if abs(total - EXPECTED_BYTES) > TOLERANCE * EXPECTED_BYTES:
        sys.exit(f"perldoc_extract.py: found {total:,} bytes where about {EXPECTED_BYTES:,} are expected: the package has "
                 f"changed, or {folder} is damaged")
    os.makedirs(target, exist_ok=True)
    write_whole(os.path.join(target, "README.md"), readme(pages))
    write_whole(os.path.join(target, "held_out.txt"), "".join(pages[name] for name in HELD_OUT))
    train = "".join(text for name, text in sorted(pages.items()) if name not in HELD_OUT)
    write_whole(os.path.join(target, "train.txt"), train)
    print(f"perldoc: {len(train.split()):,} words to train on, "
          f"{sum(len(pages[name].split()) for name in HELD_OUT):,} held out")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        main(sys.argv[1], sys.argv[2])
    except OSError as error:
        sys.exit(f"perldoc_extract.py: cannot read {sys.argv[1]}: {error}")
