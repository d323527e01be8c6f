"""The demonstration holds from an empty folder to a drained gateway, as a person or a program runs it."""

import json
import subprocess
import sys
from pathlib import Path

LONGEST_S = 100


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
    assert (ran.returncode, summary["ok"], summary["steps"]) == (0, True, 12)
    assert ran.stderr == ""
    assert sorted(path.name for path in (tmp_path / "demo" / "journals").iterdir()) == [
        "site-0001.jsonl",
        "site-0002.jsonl",
    ]
