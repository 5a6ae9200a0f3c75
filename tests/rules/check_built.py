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
    for path in sources.files(root, ("_test.cpp",)):
        folder = os.path.dirname(path)
        room = folder.removeprefix("tests/")
        if not folder.startswith("tests/"):
            yield f"{path}: tests live under tests/"
        elif room not in known:
            yield f"{path}: tests/CMakeLists.txt does not name {room}"
        elif not os.path.isfile(os.path.join(root, folder, "CMakeLists.txt")):
            yield f"{path}: {folder} has no CMakeLists.txt"
        elif "tessera_tests(" not in sources.read(root, f"{folder}/CMakeLists.txt"):
            yield f"{path}: {folder}/CMakeLists.txt does not call tessera_tests()"


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
