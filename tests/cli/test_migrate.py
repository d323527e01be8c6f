"""`migrate` brings a database up to date as the owner of its tables, and `doctor` sees the difference."""

import json
from collections.abc import Iterator

import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from skygw.database.migrate import known_migrations
from skygw.database.platform import create_platform
from tests.fakes.postgres import PostgresServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as running:
        yield running


def verdicts(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    run(["doctor", "--node-port", "0", "--internal-port", "0", "--json"])
    return {check["name"]: check["verdict"] for check in json.loads(capsys.readouterr().out)["checks"]}


def test_what_is_waiting_is_listed_then_applied_once(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    owner_url, _ = server.new_database(empty=True)
    create_platform(owner_url)
    monkeypatch.setenv("SKYGW_DATABASE_OWNER_URL", owner_url)
    assert run(["migrate", "--check"]) == ExitCode.FAILED
    assert capsys.readouterr().out.split() == known_migrations()
    assert run(["migrate", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == {"applied": known_migrations(), "unwatched": []}
    assert run(["migrate"]) == ExitCode.OK
    assert capsys.readouterr().out == ""
    assert run(["migrate", "--check"]) == ExitCode.OK


def test_doctor_finds_an_unprepared_database_wrong_and_a_prepared_one_well(
    server: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, prepared = server.new_database()
    monkeypatch.setenv("SKYGW_DATABASE_URL", prepared)
    seen = verdicts(capsys)
    assert (seen["database"], seen["platform tables"], seen["migrations"], seen["clock"]) == ("ok",) * 4
    _, empty = server.new_database(empty=True)
    monkeypatch.setenv("SKYGW_DATABASE_URL", empty)
    seen = verdicts(capsys)
    assert (seen["platform tables"], seen["migrations"]) == ("wrong", "wrong")


def test_without_the_owners_url_nothing_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate"]) == ExitCode.USAGE
    assert "SKYGW_DATABASE_OWNER_URL is not set" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [[], ["--check"]])
def test_a_database_that_does_not_answer_is_one_sentence_without_its_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: list[str]
) -> None:
    monkeypatch.setenv("SKYGW_DATABASE_OWNER_URL", "postgresql://owner:hunter2@127.0.0.1:1/skynet")
    assert run(["migrate", *argv]) == ExitCode.USAGE
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "owner@127.0.0.1:1/skynet" in written
    assert "hunter2" not in written
