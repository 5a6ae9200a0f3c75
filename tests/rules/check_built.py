"""Every tests/ROOM/*_test.cpp is built, every script parses and can be executed.   check_built.py ROOT"""
import ast
import os
import re
import subprocess
import sys

import sources


def unbuilt(root):
    listed = re.sub(r"#.*", "", sources.read(root, "tests/CMakeLists.txt"))
    known = {word for loop in re.findall(r"foreach\(\w+ ([^)]*)\)", listed) for word in loop.split()}
    known |= set(re.findall(r"add_subdirectory\(([\w/]+)\)", listed))
    called = set()  # the folders whose *_test.cpp some CMakeLists.txt hands to tessera_tests()
    for path in sources.files(root, ("CMakeLists.txt",)):
        if path.startswith("tests/"):
            called |= set(re.findall(r"tessera_tests\(\s*([\w/]+)", re.sub(r"#.*", "", sources.read(root, path))))
    for path in sources.files(root, ("_test.cpp",)):
        room = os.path.dirname(path).removeprefix("tests/")
        if not path.startswith("tests/"):
            yield f"{path}: tests live under tests/"
        elif room.split("/")[0] not in known:
            yield f"{path}: tests/CMakeLists.txt does not name {room.split('/')[0]}"
        elif room not in called:
            yield f"{path}: no CMakeLists.txt under tests/ calls tessera_tests({room} ...)"


def shebang(root, path):
    with open(os.path.join(root, path), "rb") as file:
        return file.readline(80).decode("utf-8", "replace")


def broken_scripts(root):
    scripts = 0
    for path in sources.files(root, ("",)):
        first = shebang(root, path)
        if path.endswith(".py"):
            scripts += 1
            try:
                ast.parse(sources.read(root, path), path)
            except SyntaxError as error:
                yield f"{path}: {error}"
        if first.startswith("#!") and re.search(r"\b(ba|da)?sh\b", first):
            scripts += 1
            parsed = subprocess.run(["bash", "-n", os.path.join(root, path)], capture_output=True, text=True, check=False)
            if parsed.returncode != 0:
                yield f"{path}: {parsed.stderr.strip()}"
        if first.startswith("#!") and not os.access(os.path.join(root, path), os.X_OK):
            yield f"{path}: begins with #! but cannot be executed: chmod +x"
    print(f"{scripts} scripts parsed")


def main():
    faults = list(unbuilt(sys.argv[1])) + list(broken_scripts(sys.argv[1]))
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
