"""A simulated site as a program of its own, so that it can be killed.

`python -m tests.fleet.commands.site_program SPEC`, a `SiteSpec` as JSON. Says `ready` when all its installations are
connected, and runs until killed.
"""

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from random import random

import trio

from skygw.auth import development
from skygw.demo.tokens import node_tokens
from skygw.sim.blueprint import SiteBlueprint, draw_site
from skygw.sim.node import NodeHabits
from skygw.sim.station import open_station

TIME_SCALE = 25.0
"""A slew over the whole sky takes two seconds."""
SOONER = 0.1
"""Of the longest wait before it comes back: real ones may take half a minute."""
READY_WITHIN_S = 30.0


@dataclass(frozen=True)
class SiteSpec:
    """What the program needs to know. `key_dir` is the gateway's data directory."""

    seed: str
    number: int
    telescopes: int
    url: str
    directory: str
    key_dir: str
    audience: str = "sky-node-gateway"

    @property
    def blueprint(self) -> SiteBlueprint:
        return draw_site(self.seed, self.number, telescopes=self.telescopes)

    @property
    def journal_path(self) -> Path:
        return Path(self.directory, "journals", f"site-{self.number:04d}.jsonl")


@asynccontextmanager
async def site_program(spec: SiteSpec) -> AsyncIterator[trio.Process]:
    """The program, begun and not awaited; leaving the block kills it."""
    with Path(spec.directory, "program.log").open("ab") as log:  # noqa: ASYNC230 - a moment
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "tests.fleet.commands.site_program", json.dumps(asdict(spec))],
            stdout=subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        with trio.CancelScope(shield=True):
            process.kill()
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def is_ready(process: trio.Process) -> None:
    """Returns when all its installations have been welcomed. Raises `RuntimeError` if it ends before."""
    assert process.stdout is not None
    with trio.fail_after(READY_WITHIN_S):
        if not await process.stdout.receive_some(64):
            raise RuntimeError("the program of a site ended before it was ready")


async def run(spec: SiteSpec) -> None:
    key = development.load(Path(spec.key_dir))
    habits = NodeHabits(
        url=spec.url,
        token_of=node_tokens(key, audience=spec.audience),
        snapshot_every_s=2.0,
        progress_every_s=0.2,
        comeback_chance=lambda: random() * SOONER,  # noqa: S311 - opens nothing
    )
    directory = Path(spec.directory)
    with open_station(
        spec.blueprint,
        directory=directory,
        habits=habits,
        time_scale=TIME_SCALE,
        journal_directory=directory / "journals",
    ) as station:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(station.run)
            await station.wait_connected()
            sys.stdout.write("ready\n")
            sys.stdout.flush()


if __name__ == "__main__":
    logging.basicConfig(level="WARNING")
    trio.run(run, SiteSpec(**json.loads(sys.argv[1])))
