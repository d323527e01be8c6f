"""`skygw simulate` runs a fleet against a gateway, and says in one sentence what keeps it from doing so."""

import json
import os
import sys
from pathlib import Path

import pytest
import trio

from skygw.cli.main import run
from skygw.testing.gateway import TestGateway


async def test_a_fleet_is_provisioned_and_connected_and_counted(gateway: TestGateway, tmp_path: Path) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SKYGW_")}
    ran = await trio.run_process(
        [
            *(sys.executable, "-m", "skygw.cli.main", "simulate", "--nodes", "5", "--url", gateway.node_url),
            *("--duration-s", "4", "--journals", str(tmp_path / "journals"), "--json"),
        ],
        env={
            **ours,
            "SKYGW_DATA_DIR": str(gateway.settings.data_dir),
            "SKYGW_DATABASE_OWNER_URL": gateway.owner_url,
        },
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, b"")
    counts = json.loads(ran.stdout.splitlines()[-1])
    assert (counts["connected"], counts["nodes"], counts["lastTrouble"]) == (5, 5, None)
    assert [path.name for path in (tmp_path / "journals").iterdir()] == ["site-0001.jsonl"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nodes", "1"], "--nodes is 1, but should be from 2"),
        (["--url", "ftp://here"], "should look like ws://127.0.0.1:5002"),
        (["--tokens", "/nowhere.json"], "cannot be read"),
        ([], "start it with “skygw serve”"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    arguments: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SKYGW_DATA_DIR", str(tmp_path))
    assert run(["simulate", *arguments]) == 2
    complained = capsys.readouterr().err
    assert says in complained
    assert complained.count("\n") == 1
