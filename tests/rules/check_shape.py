"""Files stay short: at most 400 lines outside tests. Long functions are listed, not refused.   check_shape.py ROOT"""
import statistics
import sys

import sources

MAX_FILE, LONG_FUNCTION = 400, 80
def functions(lines):
    """(first line, length) of functions outside classes: a signature in the first column up to a brace in the first column."""
    head = None
    for number, line in enumerate(lines, 1):
        if line.startswith("}"):
            if head:
                yield head, number - head + 1
            head = None
        elif line[:1].isalpha():
            head = number if "(" in line and not line.endswith((";", "}")) else None


def main():
    root, faults, sizes, long_ones = sys.argv[1], [], [], []
    for path in sources.files(root, (".h", ".cpp", ".cu")):
        lines = sources.read(root, path).splitlines()
        if path.startswith("tests/"):
            continue
        sizes.append(len(lines))
        if len(lines) > MAX_FILE:
            faults.append(f"{path}: {len(lines)} lines, more than {MAX_FILE}: give its ideas a file each")
        long_ones += [f"{path}:{n}: a function of {size} lines" for n, size in functions(lines) if size > LONG_FUNCTION]
    print("\n".join(sorted(long_ones) + faults))
    print(f"{len(sizes)} files outside tests, median {statistics.median(sizes or [0]):.0f} and longest {max(sizes or [0])} lines, "
          f"{len(long_ones)} functions over {LONG_FUNCTION} lines, {len(faults)} files too long")
    return 1 if faults or not sizes else 0


if __name__ == "__main__":
    sys.exit(main())
