"""What is left of the disk, and who may still write there: lines of the log stop first, results and assets never."""

import errno
import logging
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

from skygw.protocol.limits import MIB

log = logging.getLogger("skygw.client")

FILE_NAME = "reserve"
RESERVE_BYTES = 4 * MIB
"""Some 10,000 reports, or what a night's tasks and their files have to say a hundred times over."""

FreeBytes = Callable[[Path], int]


def free_bytes(directory: Path) -> int:
    """What a program that is not the superuser may still write there. Raises `OSError`."""
    disk = os.statvfs(directory)
    return disk.f_bavail * disk.f_frsize


class SpareDisk:
    """Blocking. Below `keep_free_bytes` the disk is low: what may be left out is. When it is full altogether, a file
    that was kept for that is given up, so that results still find room.
    """

    def __init__(self, directory: Path, *, keep_free_bytes: int, free: FreeBytes = free_bytes) -> None:
        self._directory = directory
        self._reserve = directory / FILE_NAME
        self._keep_free_bytes = keep_free_bytes
        self._free = free
        self._was_low = False

    def is_low(self) -> bool:
        """A disk that does not say is not low."""
        try:
            low = self._free(self._directory) < self._keep_free_bytes
        except OSError:
            return False
        if low != self._was_low:
            self._was_low = low
            log.warning("the disk is %s", "nearly full: lines of the log are left out" if low else "no longer full")
        return low

    def lay_by(self) -> None:
        """Puts the reserve on the disk, if there is room and it is not there. Written, since a file without bytes
        reserves nothing.
        """
        if self._keep_free_bytes == 0 or self._reserve.exists() or self.is_low():
            return
        part = self._reserve.with_suffix(".part")
        try:
            part.write_bytes(os.urandom(RESERVE_BYTES))  # no file system stores this as nothing
            part.replace(self._reserve)
        except OSError as error:
            part.unlink(missing_ok=True)
            log.warning("no room can be kept for results: %s", error)

    def give_up(self) -> bool:
        """Whether there was a reserve; it is free now."""
        try:
            self._reserve.unlink()
        except FileNotFoundError:
            return False
        log.warning("the disk is full: the room kept for results is used now")
        return True


def is_full(error: sqlite3.Error | OSError) -> bool:
    """Whether this is about a disk without room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
