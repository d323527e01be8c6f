"""What the gateway wants of its process: a file for each connection, and no long garbage collection in a storm."""

import gc
import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

log = logging.getLogger("skygw.cli")

OTHER_FILES = 128
"""Beside the connections: logs, the database's connections, the event loop's own, what is uploaded."""

YOUNG_OBJECTS = 10_000
YOUNG_COLLECTIONS = 5
"""New containers before the newest are looked through, and how often that happens before those of 50,000 are: some
milliseconds, and some tens. Python's own 700 are a hundred collections for each hundred sockets.
"""
NEVER = 2**31 - 1
LOOK_EVERY_S = 10.0
AT_THE_LATEST_S = 900.0


@dataclass(frozen=True)
class FileLimit:
    """How many files and sockets this process may hold, and how many it may need."""

    allowed: int
    needed: int

    @property
    def is_enough(self) -> bool:
        return self.allowed >= self.needed


def raise_file_limit(max_connections: int) -> FileLimit:
    """Raise the limit of open files to what the system allows, and say if that is less than two full listeners need.

    The soft limit is 1,024 in most shells, for the sake of programs older than the gateway's.
    """
    limit = file_limit(max_connections)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if not limit.is_enough:
        log.warning("too few open files are allowed", extra={"allowed": limit.allowed, "needed": limit.needed})
    return limit


def file_limit(max_connections: int) -> FileLimit:
    """As `raise_file_limit` would find it; changes nothing."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    needed = 2 * max_connections + OTHER_FILES
    return FileLimit(allowed=needed if hard == resource.RLIM_INFINITY else hard, needed=needed)


@contextmanager
def collections_by_hand() -> Iterator[None]:
    """Within it, Python looks through young objects only; `collect_in_calm` looks through the old ones.

    A session is some hundred long-lived objects. Python looks through everything whenever that has grown by a quarter:
    with a thousand nodes coming back that is half a second, several times in the storm, in which nobody is answered.
    What was imported until now lives as long as the process, and is not looked at again at all.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_COLLECTIONS, NEVER)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def collect_in_calm() -> None:
    """Until cancelled: a full collection when much was made and nothing is being made any more; at the latest after
    `AT_THE_LATEST_S` of never a calm moment. The cycles that dead sessions leave behind wait for it.
    """
    collected = seen = _middle_collections()
    waited_s = 0.0
    while True:
        await trio.sleep(LOOK_EVERY_S)
        now = _middle_collections()
        waited_s = waited_s + LOOK_EVERY_S if now > collected else 0.0
        if now > collected and (now == seen or waited_s >= AT_THE_LATEST_S):
            gc.collect()
            collected, waited_s = now, 0.0
        seen = now


def _middle_collections() -> int:
    return int(gc.get_stats()[1]["collections"])
