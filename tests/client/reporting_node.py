"""A node's program that reports and submits files, to be killed: `python -m tests.client.reporting_node URL DIRECTORY`.

Each thing that was kept is told on stdout, after it was; then no killing may lose it.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import trio

from skygw.client.uploads import LEAST_PIECE
from skygw.ids import TaskUid
from tests.client.owing import make_config, owing

TASKS = tuple(TaskUid(UUID(int=number)) for number in range(1, 4))
FILE_BYTES = 4 * LEAST_PIECE


async def work(url: str, directory: Path, files: Sequence[Path]) -> None:
    """For ever."""
    async with owing(make_config(url, directory / "state")) as owed:
        for path in files:
            asset = await owed.assets.submit(
                path,
                observation_uid=UUID(int=1),
                instrument_uid=UUID(int=2),
                role="SCIENCE_LIGHT",
                content_type="image/fits",
                task_uid=TASKS[0],
            )
            tell("file", asset.sha256)
        while True:
            for task in TASKS:
                uid = await owed.tasks.progress(task, phase="exposing", progress=0.5)
                tell("report", uid)
            await trio.sleep(0.002)


def tell(*words: object) -> None:
    """In one write: a line is told whole or not at all."""
    os.write(sys.stdout.fileno(), (" ".join(map(str, words)) + "\n").encode())


if __name__ == "__main__":
    lies_in = Path(sys.argv[2])
    trio.run(work, sys.argv[1], lies_in, sorted(lies_in.glob("*.fits")))
