"""Autobahn's cases, as `kosoku` runs them, against both ends of ours, each in a process of its own."""

import json
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from tests.benchmarks.processes import worker
from tests.conformance.verdicts import Verdict

KOSOKU = Path(sysconfig.get_path("scripts"), "kosoku")

ENDS_WITHIN_S = 30.0
"""After the client under test has asked for the report, the suite's server writes it and ends."""


async def cases_against_server(cases: Iterable[str], report: Path) -> list[Verdict]:
    """The gateway's serving stack under test. The suite's own report is written to `report`.

    Raises `RuntimeError` when there is no verdict at all.
    """
    async with worker("tests.conformance.echo_server") as server:
        url = (await server.says())["url"]
        ran = await trio.run_process(
            [KOSOKU, "-m", "fuzzingclient", *_selection(cases), "-o", report, url],
            check=False,
            capture_stdout=True,
            capture_stderr=True,
        )
    return _verdicts(report, ran.stderr)


async def cases_against_client(cases: Iterable[str], report: Path) -> list[Verdict]:
    """The node client's link under test; see `cases_against_server`."""
    async with _fuzzing_server(cases, report) as (url, server):
        await trio.run_process([sys.executable, "-m", "tests.conformance.echo_client", url])
        assert server.stderr is not None
        said = b""
        with trio.move_on_after(ENDS_WITHIN_S):
            while more := await server.stderr.receive_some():
                said += more
    return _verdicts(report, said)


@asynccontextmanager
async def _fuzzing_server(cases: Iterable[str], report: Path) -> AsyncIterator[tuple[str, trio.Process]]:
    process = await trio.lowlevel.open_process(
        [KOSOKU, "-m", "fuzzingserver", *_selection(cases), "-o", report, "127.0.0.1:0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        line = b""
        with trio.move_on_after(ENDS_WITHIN_S):
            while not line.endswith(b"\n") and (more := await process.stderr.receive_some(1)):
                line += more
        if b"ws://" not in line:
            raise RuntimeError(f"The suite's server did not start: {line.decode()}")
        yield line.split()[-1].decode(), process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


def _selection(cases: Iterable[str]) -> list[str]:
    return [part for case in cases for part in ("-i", case)]


def _verdicts(report: Path, said: bytes) -> list[Verdict]:
    index = report / "index.json"
    if not index.exists():
        raise RuntimeError(f"The suite wrote no report: {said.decode()[-2_000:]}")
    (cases,) = json.loads(index.read_text()).values()
    return [Verdict(case, found["behavior"], found["behaviorClose"]) for case, found in cases.items()]
