"""The demonstration holds from an empty folder to a drained gateway, as a person or a program runs it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

PAGE = Path(__file__).parents[2] / "docs" / "simulation.md"
LONGEST_S = 100
INTERRUPTED = 130


def test_every_step_of_the_demonstration_holds(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "skygw.cli.main", "demo", "--json", "--data-dir", str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=LONGEST_S,
        check=False,
    )

    *steps, summary = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [step["step"] for step in steps if not step["ok"]] == []
    assert (ran.returncode, summary["ok"], summary["steps"]) == (0, True, len(steps))
    told = PAGE.read_text(encoding="utf-8").partition("| step | is held to |\n|---|---|\n")[2].partition("\n\n")[0]
    assert [row.split("|")[1].strip() for row in told.splitlines()] == [step["step"] for step in steps]
    assert ran.stderr == ""
    assert sorted(path.name for path in (tmp_path / "demo" / "journals").iterdir()) == [
        "site-0001.jsonl",
        "site-0002.jsonl",
    ]


async def test_a_signal_ends_it_and_leaves_nothing_running(tmp_path: Path) -> None:
    data_dir = tmp_path / "demo"
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "skygw.cli.main", "demo", "--json", "--data-dir", str(data_dir)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with trio.fail_after(LONGEST_S):
        first = json.loads(await process.stdout.receive_some())
        server = int((data_dir / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
        process.send_signal(signal.SIGTERM)
        async with process.stdout:
            assert await process.wait() == INTERRUPTED

    assert first["ok"]
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
