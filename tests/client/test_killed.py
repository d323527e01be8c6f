"""Either side is killed at any moment: nothing that was kept is lost or takes effect twice, all stays in order."""

import os
import random
import subprocess
import sys
from functools import partial
from hashlib import sha256
from pathlib import Path

import trio

from tests.client.owing import done, make_config, owing
from tests.client.reporting_node import FILE_BYTES, TASKS
from tests.fakes.hub import Answer, Asked, Cut, FakeHub, fake_hub

ROUNDS = int(os.environ.get("SKYGW_TEST_KILLS", "3"))
SEED = os.environ.get("SKYGW_TEST_SEED", "1")


class Told:
    """What the node's program said it had kept, run after run."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.reports: list[str] = []

    async def run_and_kill(self, hub: FakeHub, directory: Path, *, after_lines: int) -> None:
        """Starts the program, and kills it when it has told so much."""
        program = [sys.executable, "-m", "tests.client.reporting_node", hub.socket_url, str(directory)]
        here = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        start = partial(trio.run_process, program, stdout=subprocess.PIPE, check=False, env=here)
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(start)
            assert process.stdout is not None
            received = b""
            with trio.fail_after(30):
                while received.count(b"\n") < after_lines:
                    received += await process.stdout.receive_some()
            process.kill()
            while more := await process.stdout.receive_some():
                received += more
        for line in received.decode().split("\n")[:-1]:
            kind, uid = line.split()
            if kind == "file":
                self.files.add(uid)
            else:
                self.reports.append(uid)


async def test_a_node_killed_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    sys.stdout.write(f"SKYGW_TEST_SEED={SEED}\n")
    chance = random.Random(SEED)  # noqa: S311 - troubles are drawn, not secrets
    for number in range(2):
        (tmp_path / f"{number}.fits").write_bytes(chance.randbytes(FILE_BYTES))
    told = Told()

    def trouble(asked: Asked) -> Answer | None:
        if chance.random() < 0.05:
            raise Cut  # the hub had it, and was killed before it said so
        return None

    async with fake_hub() as hub:
        hub.after = trouble
        for _ in range(ROUNDS):
            hub.cut_bodies_at = [chance.randrange(1, FILE_BYTES)]
            await told.run_and_kill(hub, tmp_path, after_lines=chance.randrange(1, 60))
        hub.after = None
        async with owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
            await done(owed.work)

    arrived = [body["reportUid"] for _, _, body in hub.effects]
    in_order = [uid for uid in arrived if uid in set(told.reports)]
    by_task = {str(task): [body["reportUid"] for of, _, body in hub.effects if of == str(task)] for task in TASKS}
    assert len(arrived) == len(set(arrived))
    assert set(told.reports) <= set(arrived)
    assert len(in_order) == len(told.reports) > 0
    for uids in by_task.values():
        mine = [uid for uid in told.reports if uid in set(uids)]
        assert [uid for uid in uids if uid in set(mine)] == mine
    held = {sha256(upload.held).hexdigest() for upload in hub.uploads.values()}
    assert told.files <= held
    assert len(hub.uploads) == len(hub.assets) == len(held)


async def test_a_hub_killed_in_the_middle_of_uploads_and_reports_gets_the_rest_when_it_is_back(tmp_path: Path) -> None:
    chance = random.Random(SEED)  # noqa: S311
    path = tmp_path / "frame.fits"
    content = chance.randbytes(FILE_BYTES)
    path.write_bytes(content)
    async with (
        fake_hub() as hub,
        trio.open_nursery() as nursery,
        owing(make_config(hub.socket_url, tmp_path / "state", upload_bytes_per_s=1e6)) as owed,
    ):
        await owed.assets.submit(
            path,
            observation_uid=TASKS[0],
            instrument_uid=TASKS[0],
            role="SCIENCE_LIGHT",
            content_type="image/fits",
            task_uid=TASKS[0],
        )
        for _ in range(3):
            for task in TASKS:
                await owed.tasks.progress(task, phase="exposing", progress=0.5)
            hub.close()
            await owed.tasks.progress(TASKS[0], phase="reading", progress=0.6)
            await nursery.start(hub.listen)
            owed.linked()
        await done(owed.work)
        nursery.cancel_scope.cancel()

    assert len(hub.effects) == 12
    assert [bytes(upload.held) for upload in hub.uploads.values()] == [content]
