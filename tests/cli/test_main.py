"""Every way a command can end has its exit code; what a person can put right is one sentence, never a traceback."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from skygw.cli import main
from skygw.cli.main import COMMANDS, run
from skygw.cli.terminal import CommandFailed, ExitCode
from skygw.errors import StartupError


def ends_in(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def application() -> Callable[..., Any]:
        def command(*args: object, **kwargs: object) -> None:
            raise error

        return command

    monkeypatch.setattr(main, "application", application)


def test_help_lists_every_command_and_loads_none_of_them() -> None:
    script = (
        "import sys; from skygw.cli.main import run; code = run(['--help']);"
        "heavy = {'trio', 'httpx', 'quart', 'hypercorn', 'asyncpg', 'astropy', 'jwt'} & set(sys.modules);"
        "print(code, sorted(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("0 []\n")
    assert [name for name in COMMANDS if f" {name} " not in done.stdout] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "--help"]) == ExitCode.OK
    text = capsys.readouterr().out
    assert f"skygw {name}" in text
    assert "--json" in text or name == "serve"


def test_an_unknown_command_is_a_usage_error_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serv"]) == ExitCode.USAGE
    written = capsys.readouterr()
    assert written.out == ""
    assert 'Did you mean "serve"?' in written.err
    assert written.err.count("\n") == 1


def test_an_unknown_option_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--node-prot", "1"]) == ExitCode.USAGE
    assert "Did you mean --node-port?" in capsys.readouterr().err


def test_a_secret_is_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--database-url", "postgresql://u:hunter2@h/d"]) == ExitCode.USAGE
    assert "hunter2" not in capsys.readouterr().err


def test_a_bad_setting_ends_the_process_with_2_and_one_sentence() -> None:
    argv = [sys.executable, "-m", "skygw.cli.main", "serve", "--node-port", "70000"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "skygw: --node-port is “70000”, but should be less than or equal to 65535: correct it on the command line\n"
    )


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StartupError("no"), ExitCode.USAGE),
        (CommandFailed("no"), ExitCode.FAILED),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ExceptionGroup("", [StartupError("no")]), ExitCode.USAGE),
        (ExceptionGroup("", [ExceptionGroup("", [StartupError("no")])]), ExitCode.USAGE),
        (ExceptionGroup("", [StartupError("no"), OSError("brought down with it")]), ExitCode.USAGE),
        (BaseExceptionGroup("", [KeyboardInterrupt()]), ExitCode.INTERRUPTED),
    ],
)
def test_what_a_person_can_put_right_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException, code: ExitCode
) -> None:
    ends_in(monkeypatch, error)
    assert run([]) == code
    assert capsys.readouterr().err == ("" if code is ExitCode.INTERRUPTED else "skygw: no\n")


@pytest.mark.parametrize("error", [ZeroDivisionError(), ExceptionGroup("", [ZeroDivisionError(), OSError()])])
def test_our_own_faults_keep_their_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    ends_in(monkeypatch, error)
    with pytest.raises(type(error)):
        run([])


def test_with_json_a_failure_is_json_on_stdout_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ends_in(monkeypatch, CommandFailed("no", {"code": "busy", "retry": "after"}))
    assert run(["--json"]) == ExitCode.FAILED
    assert json.loads(capsys.readouterr().out) == {"detail": "no", "code": "busy", "retry": "after"}


def test_a_taken_port_ends_serve_with_2_and_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        argv = [sys.executable, "-m", "skygw.cli.main", "serve", "--node-port", str(port), "--data-dir", str(tmp_path)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("skygw: ")
    assert str(port) in done.stderr.splitlines()[-1]


def test_a_database_that_does_not_answer_ends_serve_with_2_and_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SKYGW_DATABASE_URL", "postgresql://gateway:hunter2@127.0.0.1:1/skynet")
    argv = [sys.executable, "-m", "skygw.cli.main", "serve", "--node-port", "0", "--internal-port", "0"]
    done = subprocess.run([*argv, "--data-dir", str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("skygw: ")


@pytest.mark.usefixtures("development_key")
def test_a_reader_that_has_seen_enough_is_no_fault_of_ours() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "skygw.cli.main", "token", "--json"]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.returncode == ExitCode.FAILED
    assert done.stderr == ""


def test_neither_is_it_when_the_terminal_library_notices_inside_a_nursery() -> None:
    script = """
import sys, trio
from skygw.cli import main

async def draw():
    async with trio.open_nursery():
        raise SystemExit(1)  # what rich does when nobody reads

main.application = lambda: lambda *args, **options: trio.run(draw)
sys.exit(main.run([]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (ExitCode.FAILED, "")
