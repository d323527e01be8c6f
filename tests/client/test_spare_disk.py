"""On a disk that is nearly full lines of the log and progress stop first; results and files are kept to the end."""

import os
import shutil
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from skygw.client.journal import Journal
from skygw.client.spare_disk import FILE_NAME, RESERVE_BYTES, SpareDisk
from skygw.ids import TaskUid
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MIB
from skygw.protocol.node_frames import PublishLog
from tests.client.owing import make_config, owing

TASK = TaskUid(UUID(int=7))
ROOMY = 10**12


def line() -> PublishLog:
    return PublishLog(seq=1, data=Opaque.of({"message": "x"}), observed_at=datetime.now(UTC))


def test_lines_of_the_log_are_left_out_while_the_disk_is_nearly_full_and_that_is_declared(tmp_path: Path) -> None:
    free = [ROOMY]
    journal = Journal(tmp_path, max_bytes=MIB, spare=SpareDisk(tmp_path, keep_free_bytes=MIB, free=lambda _: free[0]))
    kept = [journal.append(line(), may_drop=True)]
    free[0] = MIB - 1
    kept += [journal.append(line(), may_drop=True) for _ in range(3)]
    urgent = journal.append(line(), may_drop=False)
    free[0] = ROOMY
    kept.append(journal.append(line(), may_drop=True))
    gap = journal.read(after=2, at_most=1, max_bytes=MIB)[0].text
    journal.close()

    assert kept == [1, None, None, None, 4]
    assert urgent == 2
    assert '"reason":"disk_full"' in gap.replace(" ", "")
    assert '"count":3' in gap.replace(" ", "")


async def test_progress_is_left_out_on_a_nearly_full_disk_and_results_and_ends_are_not(tmp_path: Path) -> None:
    config = make_config("ws://127.0.0.1:1/v1/ws/node", tmp_path)
    async with owing(config, free=lambda _: 0, deliver=False) as owed:
        progress = await owed.tasks.progress(TASK, phase="exposing", progress=0.5)
        results = await owed.tasks.results(TASK, {})
        complete = await owed.tasks.complete(TASK, status="completed")
        kept = owed.work.owed.items

    assert progress is None
    assert results != complete
    assert kept == 2


def test_room_is_kept_for_results_and_given_up_once(tmp_path: Path) -> None:
    spare = SpareDisk(tmp_path, keep_free_bytes=MIB)
    spare.lay_by()
    size = (tmp_path / FILE_NAME).stat().st_size

    assert size == RESERVE_BYTES
    assert [spare.give_up(), spare.give_up()] == [True, False]


FULL_DISK = """
    import os, pathlib, sqlite3, trio
    from uuid import UUID
    from tests.client.owing import make_config, owing

    async def main():
        disk = pathlib.Path(os.environ["DISK"])
        async with owing(make_config("ws://127.0.0.1:1/v1/ws/node", disk / "state"), deliver=False) as owed:
            async def complete(number, size):
                uid = UUID(int=number)
                return await owed.tasks.complete(UUID(int=7), status="completed", summary="x" * size, report_uid=uid)
            await complete(1, 10)
            try:
                with open(disk / "frames", "wb") as file:
                    while True:
                        file.write(bytes(65536))
                        file.flush()
            except OSError as error:
                print(error.strerror)
            kept = 1
            try:
                while kept < 1000:
                    await complete(kept + 1, 100_000)
                    kept += 1
            except sqlite3.Error as error:
                print(error)
            print(kept, owed.work.owed.items)
        async with owing(make_config("ws://127.0.0.1:1/v1/ws/node", disk / "state"), deliver=False) as again:
            print(again.work.owed.items)

    trio.run(main)
"""


def test_a_full_disk_still_takes_results_and_what_it_took_is_there_after_a_restart(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("no namespaces here, and so no disk of one's own to fill")
    script = tmp_path / "fill.py"
    script.write_text(textwrap.dedent(FULL_DISK))
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=48m none "{disk}" && exec "{sys.executable}" "{script}"'
    environment = {**os.environ, "DISK": str(disk), "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if ran.stderr.startswith(("unshare:", "mount:")):  # else it is the script that failed, whatever its words are
        pytest.skip("no disk of one's own can be made here")

    full, said, counts, after = ran.stdout.splitlines()
    kept, items = map(int, counts.split())
    assert full == "No space left on device"
    assert said == "database or disk is full"
    assert kept == items == int(after)
    assert kept > 10
