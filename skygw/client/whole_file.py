"""Writes a file whole or not at all, so that who loses power finds the one before or the new one."""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """A temporary file, fsync, rename, fsync of the directory. Blocking, mode 0600. Raises `OSError`."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":  # Windows neither opens nor needs to flush a directory
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
