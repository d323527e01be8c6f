"""`migrate` needs the owner of the tables, and says so."""

import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode


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
