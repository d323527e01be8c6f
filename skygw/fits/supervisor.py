"""Keeps the helper process: started for the first file, asked one at a time, replaced when it does not answer."""

import array
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

import trio

from skygw.fits.finding import MOST_REPLY_BYTES, FitsFinding, read_finding
from skygw.fits.helper import EXAMINE, NOT_SHUT_IN, READY

MIB = 1024 * 1024
log = logging.getLogger("skygw.fits")

REAP_S = 5.0
"""A process that was killed is waited for so long: it may hang in the kernel, on a disk that does not answer."""


class HelperAway(Exception):
    """No helper process can be started here and now: nothing is known of the file. `str` of it is a sentence."""


@dataclass(frozen=True, slots=True)
class HelperLimits:
    """What one helper process may use. `wall_s` is for one file, `cpu_s` for all it ever examines."""

    wall_s: float = 30.0
    start_s: float = 60.0
    cpu_s: int = 300
    memory_bytes: int = 512 * MIB


class FitsHelper:
    """Made by `open_fits_helper`. Whoever asks while it works waits for its turn."""

    def __init__(self, command: Sequence[str], limits: HelperLimits) -> None:
        self._command = command
        self._limits = limits
        self._turn = trio.Lock()
        self._process: _Process | None = None
        self._said_not_shut_in = False
        self.replaced = 0
        """How often a process was killed, or had died."""

    async def examine(self, descriptor: int) -> FitsFinding:
        """What the file behind a descriptor is, which is read by position and stays the caller's.

        A process that dies over it, or takes longer than `wall_s`, is replaced and the file given to one more: once may
        be the machine's trouble, twice is the file's. Raises `HelperAway`. Cancelling kills the process.
        """
        async with self._turn:
            why = ""
            for _ in range(2):
                process = await self._ready()
                try:
                    with trio.move_on_after(self._limits.wall_s):
                        return await process.examine(descriptor)
                    why = f"Examining it took longer than {self._limits.wall_s:g} s."
                except (OSError, ValueError):
                    why = "Examining it broke the program that does it."
                finally:
                    if not process.is_idle:
                        await self._put_away()
                log.warning("the process that examines FITS files is replaced: %s", why)
            return FitsFinding(why)

    async def _ready(self) -> "_Process":
        """A process that waits for a file: this one, or the next where it has died meanwhile."""
        for _ in range(2):
            try:
                self._process = process = self._process or await _Process.start(self._command, self._limits)
            except OSError as error:
                raise HelperAway(f"no process can be started to examine FITS files: {error}") from error
            try:
                with trio.fail_after(self._limits.start_s):
                    not_shut_in = await process.ready()
            except (OSError, trio.TooSlowError):
                await self._put_away()
            except BaseException:
                await self._put_away()
                raise
            else:
                if not_shut_in is not None and not self._said_not_shut_in:
                    self._said_not_shut_in = True
                    log.warning("the process that examines FITS files keeps rights it has no use for: %s", not_shut_in)
                return process
        raise HelperAway("the process that examines FITS files ends before it is ready")

    async def _put_away(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self.replaced += 1
            await process.end()

    async def close(self) -> None:
        await self._put_away()


@asynccontextmanager
async def open_fits_helper(
    *, command: Sequence[str] | None = None, limits: HelperLimits | None = None
) -> AsyncIterator[FitsHelper]:
    """The helper; its process is killed at the end. `command` is another program that speaks as the usual one does."""
    helper = FitsHelper(command or (sys.executable, "-m", "skygw.fits.helper"), limits or HelperLimits())
    try:
        yield helper
    finally:
        await helper.close()


class _Process:
    """One process and our end of the socket to it."""

    def __init__(self, process: trio.Process, connection: trio.socket.SocketType) -> None:
        self._process = process
        self._connection = connection
        self._is_ready = False
        self._not_shut_in: str | None = None
        self.is_idle = True

    @classmethod
    async def start(cls, command: Sequence[str], limits: HelperLimits) -> "_Process":
        # Messages, not bytes: an answer comes whole or not at all.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                process = await trio.lowlevel.open_process(
                    [*command, str(theirs.fileno()), str(limits.memory_bytes), str(limits.cpu_s)],
                    stdin=DEVNULL,
                    stdout=DEVNULL,
                    # What a library says when it breaks may be a stranger's words, and no line of ours.
                    stderr=DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    env=_environment(),
                )
            except BaseException:
                ours.close()
                raise
        return cls(process, trio.socket.from_stdlib_socket(ours))

    async def ready(self) -> str | None:
        """Raises `OSError` if it ended before. Why it is not shut in, or None."""
        if self._process.poll() is not None:
            raise EOFError(f"it ended with {self._process.returncode}")
        if not self._is_ready:
            said = await self._received()
            if said != READY and not said.startswith(NOT_SHUT_IN):
                raise OSError("it does not speak as a helper does")
            self._is_ready = True
            if said != READY:
                self._not_shut_in = said.removeprefix(NOT_SHUT_IN).decode("ascii", "replace")[:200]
        return self._not_shut_in

    async def examine(self, descriptor: int) -> FitsFinding:
        """Raises `OSError` if it ends, `ValueError` if it says what it may not; it is idle again if it answered."""
        self.is_idle = False
        handed = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
        await self._connection.sendmsg([EXAMINE], handed)
        finding = read_finding(await self._received())
        self.is_idle = True
        return finding

    async def _received(self) -> bytes:
        said = await self._connection.recv(MOST_REPLY_BYTES)
        if not said:
            raise ConnectionError("it ended")
        return said

    async def end(self) -> None:
        """Kills it and waits until it is gone, `REAP_S` at most, also when cancelled."""
        self._connection.close()
        self._process.kill()
        with trio.move_on_after(REAP_S, shield=True):
            await self._process.wait()


def _environment() -> dict[str, str]:
    """Nothing of ours: there are secrets in it. The package is found where this one is, and one thread is enough."""
    return {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, sys.path)]),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "HOME": "/nonexistent",
        "PATH": os.defpath,
    }
