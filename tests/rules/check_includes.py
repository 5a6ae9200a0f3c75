"""Checks every #include, and a few words, against include_rules.txt.   check_includes.py ROOT [RULES]"""
import os
import re
import sys

import sources

CPP = (".h", ".cpp", ".cu", ".cuh")
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')
RAW_STRING = re.compile(r'R"([^()\\ ]{0,16})\(.*?\)\1"', re.DOTALL)
COMMENT = re.compile(r'//[^\n]*|/\*.*?\*/|("(?:\\.|[^"\\\n])*")', re.DOTALL)


def matcher(pattern):
    """Whether a path is matched by a folder, a header, or a glob in which * stays within a folder."""
    if not any(c in pattern for c in "*?"):
        folder = pattern.rstrip("/") + "/"
        return lambda path: path == pattern or path.startswith(folder)
    regex = re.escape(pattern).replace(r"\*\*", ".*").replace(r"\*", "[^/]*").replace(r"\?", "[^/]")
    return re.compile(regex + r"\Z").match


class Rules:
    def __init__(self, text):
        self.rooms, self.libs, self.words, self.system = {}, [], [], []
        for number, line in enumerate(text.splitlines(), 1):
            line = line.split("#")[0].strip()
            if not line:
                continue
            kind, _, rest = line.partition(" ")
            if kind == "system":
                self.system += [matcher(p) for p in rest.split()]
                continue
            # A regex may hold a colon: the files begin after the last " :".
            head, colon, tail = rest.rpartition(" :")
            if not colon and rest.endswith(":"):
                head, colon, tail = rest[:-1], ":", ""
            if not colon or kind not in ("room", "lib", "word"):
                sys.exit(f"include_rules.txt:{number}: not understood: {line}")
            allowed = [matcher(p) for p in tail.split() if not p.startswith("!")]
            refused = [matcher(p[1:]) for p in tail.split() if p.startswith("!")]
            if kind == "room":
                self.rooms[head.strip()] = (allowed, refused)
            elif kind == "lib":
                name, *headers = head.split()
                self.libs.append((name, [matcher(h) for h in headers], allowed))
            else:
                name, regex = head.strip().split(" ", 1)
                self.words.append((name, re.compile(regex), allowed))

    def room_of(self, path):
        inside = [room for room in self.rooms if path.startswith(room + "/")]
        return max(inside, key=len) if inside else None

    def fault(self, path, header, quoted, own):
        """Why `path` may not include `header`; None when it may."""
        for name, headers, allowed in self.libs:
            if any(h(header) for h in headers):
                return None if any(a(path) for a in allowed) else f"the library {name} has no place here"
        if header in own or (quoted and "/" in header):
            room = self.room_of(path)
            if header not in own:
                return "there is no such file"
            if room is None:
                return "this file is in no room"
            allowed, refused = self.rooms[room]
            if header.startswith(room + "/") and self.room_of(header) == room:
                return None
            if any(r(header) for r in refused):
                return f"{room} must not know it"
            # The parts of a room know the room, unless that is refused above; the room knows its parts.
            top = room.split("/")[0]
            if header.startswith(top + "/") or any(a(header) for a in allowed):
                return None
            return f"{room} must not know {self.room_of(header)}"
        if quoted:
            return "write the path from the top of the project"
        if any(s(header) for s in self.system) or re.fullmatch(r"[a-z_0-9]+", header):
            return None
        return "an unknown library: give it a line in include_rules.txt"


def blank(match):
    return "\n" * match[0].count("\n")


def check(root, rules):
    faults, count = [], 0
    paths = sources.files(root, CPP)
    own = set(paths)
    for path in paths:
        # Raw strings go first: a template of a file has includes of its own.
        text = RAW_STRING.sub(blank, sources.read(root, path))
        for number, line in enumerate(text.splitlines(), 1):
            found = INCLUDE.match(line)
            if not found:
                continue
            count += 1
            why = rules.fault(path, found[2], found[1] == '"', own)
            if why:
                faults.append(f"{path}:{number}: {line.strip()}: {why}")
        # Strings go too, so that a message may speak of what the code may not do.
        code = COMMENT.sub(blank, text)
        for name, regex, allowed in rules.words:
            if any(a(path) for a in allowed):
                continue
            for found in regex.finditer(code):
                number = code.count("\n", 0, found.start()) + 1
                faults.append(f"{path}:{number}: {found[0]}: {name} have no place here")
    return faults, len(paths), count


def main():
    root = sys.argv[1]
    table = sys.argv[2] if len(sys.argv) > 2 else os.path.join(os.path.dirname(__file__), "include_rules.txt")
    with open(table, encoding="utf-8") as file:
        faults, files, includes = check(root, Rules(file.read()))
    print("\n".join(faults))
    print(f"{files} files, {includes} includes, {len(faults)} against the table")
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())
