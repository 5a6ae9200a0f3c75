"""The project's own files, as every rule sees them."""
import os
import subprocess

SKIPPED = {".git", ".deps", "build", "runs", "__pycache__"}


def _walk(root):
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(f for f in folders if f not in SKIPPED)
        for name in sorted(names):
            yield os.path.relpath(os.path.join(folder, name), root)


def files(root, endings):
    """Paths relative to root: what git tracks or would (a file not yet added counts), or all where there is no git."""
    listing = subprocess.run(
        ["git", "-C", root, "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False)
    paths = listing.stdout.splitlines() if listing.returncode == 0 else _walk(root)
    return [p for p in paths if p.endswith(tuple(endings)) and os.path.isfile(os.path.join(root, p))]


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8", errors="replace") as file:
        return file.read()
