"""`skygw simulate` runs a fleet against a gateway, and says in one sentence what keeps it from doing so."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from skygw.auth.development import load_or_make
from skygw.cli.main import run
from skygw.testing.gateway import TestGateway


async def simulated(gateway: TestGateway, *arguments: str) -> tuple[int | None, dict[str, Any]]:
    """The exit code of a fleet of five, and what it counted at its end."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SKYGW_")}
    ran = await trio.run_process(
        [
            *(sys.executable, "-m", "skygw.cli.main", "simulate", "--nodes", "5", "--url", gateway.node_url),
            *("--json", *arguments),
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
    assert ran.stderr == b""
    return ran.returncode, json.loads(ran.stdout.splitlines()[-1])


async def test_a_fleet_is_provisioned_and_connected_and_counted(gateway: TestGateway, tmp_path: Path) -> None:
    code, counts = await simulated(gateway, "--duration-s", "4", "--journals", str(tmp_path / "journals"))
    assert (code, counts["connected"], counts["nodes"], counts["lastTrouble"]) == (0, 5, 5, None)
    assert "lines" not in counts
    assert [path.name for path in (tmp_path / "journals").iterdir()] == ["site-0001.jsonl"]


async def test_behind_bad_lines_a_fleet_is_cut_and_comes_back_and_the_faults_are_counted(gateway: TestGateway) -> None:
    """The plan of these lines stalls and cuts within seconds; whether all are back at the end is left to chance."""
    _, counts = await simulated(
        gateway, "--duration-s", "6", "--faults", "lte,stall-every-s=2,stall-s=0.1,cut-every-s=4"
    )
    lines = counts["lines"]
    assert lines["connections"] >= 5
    assert counts["reconnects"] > 0
    assert lines["cuts"] > 0
    assert lines["stalls"] > 0
    assert lines["bytesUp"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--nodes", "1"], "--nodes is 1, but should be from 2"),
        (["--url", "ftp://here"], "should look like ws://127.0.0.1:5002"),
        (["--tokens", "/nowhere.json"], "cannot be read"),
        (["--faults", "isdn"], "there is no line “isdn”: known are lte, satellite, dsl, and key=value pairs"),
        (["--faults", "lte,speed=9"], "a line has no “speed”: it has up-kbit, down-kbit"),
        ([], "“skygw serve” makes one"),
        (["--data-dir", "/nowhere"], "no development key in /nowhere"),
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


def test_where_no_gateway_runs_there_is_nothing_to_make_installations_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SKYGW_DATABASE_OWNER_URL", raising=False)
    load_or_make(tmp_path)
    assert run(["simulate", "--data-dir", str(tmp_path)]) == 2
    assert f"no gateway runs on {tmp_path}" in capsys.readouterr().err
