"""What the extractors share."""
import os


def write_whole(path, text):
    """The file appears complete or not at all."""
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".tmp", path)
