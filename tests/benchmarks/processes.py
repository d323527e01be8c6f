"""The processes of one repetition: each is kept to its core, says one line when it is ready, and is ended."""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

ANSWERS_WITHIN_S = 120.0


def cores() -> tuple[int, int]:
    """The core of the server under test and the core of the load; the same one where there is no second."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


class Worker:
    """A process of ours that speaks in lines of JSON."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process
        self._unread = b""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, job: dict[str, Any], *, within_s: float = ANSWERS_WITHIN_S) -> dict[str, Any]:
        """Gives it a job and waits for what comes of it."""
        assert self._process.stdin is not None
        await self._process.stdin.send_all(json.dumps(job).encode() + b"\n")
        return await self.says(within_s=within_s)

    async def says(self, *, within_s: float = ANSWERS_WITHIN_S) -> dict[str, Any]:
        """Its next line. Raises `RuntimeError` when it ends, `trio.TooSlowError` when it says nothing."""
        assert self._process.stdout is not None
        with trio.fail_after(within_s):
            while b"\n" not in self._unread:
                data = await self._process.stdout.receive_some()
                if not data:
                    raise RuntimeError(f"process {self.pid} ended with {await self._process.wait()}")
                self._unread += data
        line, _, self._unread = self._unread.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said


@asynccontextmanager
async def worker(module: str, *arguments: str, core: int | None = None) -> AsyncIterator[Worker]:
    """Runs `python -m module` until the block is left, with `core` on this processor core alone. Its stderr is ours."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    if core is not None:
        os.sched_setaffinity(process.pid, {core})  # the interpreter has not even begun to import
    try:
        yield Worker(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    await trio.aclose_forcefully(pipe)


def resident_kib(pid: int) -> float:
    """The resident memory of a process, from Linux's `/proc`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return float(line.split()[1])
    raise RuntimeError(f"/proc tells nothing about the memory of process {pid}")
