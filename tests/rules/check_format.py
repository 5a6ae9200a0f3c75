"""clang-format agrees with every C++ file.   check_format.py ROOT"""
import shutil
import subprocess
import sys

import sources

VERSION = "14."  # Debian 12's; another version would disagree about details


def main():
    root = sys.argv[1]
    program = shutil.which("clang-format-14") or shutil.which("clang-format")
    if not program:
        sys.exit("clang-format is missing. Run: launch/setup.sh tests")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.split("version ")[-1]
    if not version.startswith(VERSION):
        sys.exit(f"{program} is {version.strip()}; this check wants {VERSION}x. Run: launch/setup.sh tests")
    paths = sources.files(root, (".h", ".cpp", ".cu"))
    ill = [p for p in paths if subprocess.run([program, "--dry-run", "-Werror", p], cwd=root, capture_output=True,
                                              check=False).returncode != 0]
    if ill:
        print("not as clang-format would have it:\n  " + "\n  ".join(ill) + "\nRun: clang-format -i " + " ".join(ill))
    print(f"{len(paths)} files, {len(ill)} not formatted")
    return 1 if ill or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
