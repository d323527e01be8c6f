"""Private keys in files of their own: made once whoever starts first, never readable by others."""

import os
import secrets
import stat
from pathlib import Path

from skygw.errors import StartupError

MODE = 0o600
MAX_BYTES = 16 * 1024


def make_once(path: Path, pem: bytes) -> None:
    """Write a whole file under a name of its own first: whoever sees `path` sees a finished key, and the first one
    stays. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        try:
            # Unlike a rename, a link does not replace the key another process has just made.
            os.link(draft, path)
        except FileExistsError:
            return
    finally:
        draft.unlink()


def read_private(path: Path, what: str, *, remedy: str) -> bytes:
    """The file's bytes. Raises `StartupError`, which names `what` and says the `remedy`, if others may read it;
    `OSError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise StartupError(f"{what} {path} can be read by other users (mode {mode:04o}): {remedy}.")
        return file.read(MAX_BYTES)
