"""Tokens of the development key say what was asked, and are made only where they open something."""

import json
from pathlib import Path
from uuid import uuid4

import jwt
import pytest

from skygw.auth.development import load_or_make
from skygw.cli.main import run
from skygw.cli.terminal import ExitCode

UID = str(uuid4())

pytestmark = pytest.mark.usefixtures("development_key")


def claims(token: str) -> dict[str, object]:
    read: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    return read


def test_an_internal_token_allows_everything_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token"]) == ExitCode.OK
    made = claims(capsys.readouterr().out.strip())
    assert made["aud"] == "sky-node-gateway-internal"
    assert {"nodes:read", "nodes:command", "act_as"} <= set(str(made["scope"]).split())


def test_scopes_and_lifetime_are_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["token", "--scope", "nodes:read", "--scope", "streams:read", "--lifetime-s", "60", "--json"]
    assert run([*argv, "--subject", "scheduler"]) == ExitCode.OK
    answer = json.loads(capsys.readouterr().out)
    made = claims(answer["token"])
    assert answer["expiresInS"] == 60
    assert (made["scope"], made["sub"]) == ("nodes:read streams:read", "scheduler")


def test_a_nodes_token_names_its_installation(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "node", "--subject", UID]) == ExitCode.OK
    made = claims(capsys.readouterr().out.strip())
    assert (made["sub"], made["aud"], made["scope"]) == (UID, "sky-node-gateway", "node")


def test_the_key_of_a_named_data_directory_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = load_or_make(tmp_path / "elsewhere")
    assert run(["token", "--data-dir", str(tmp_path / "elsewhere")]) == ExitCode.OK
    made = jwt.decode(
        capsys.readouterr().out.strip(), key.private.public_key(), ["ES256"], audience="sky-node-gateway-internal"
    )
    assert made["sub"] == "skygw-cli"


def test_of_a_directory_without_a_key_that_is_said_and_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", "--data-dir", str(tmp_path / "nowhere")]) == ExitCode.USAGE
    assert f"no development key in {tmp_path / 'nowhere'}" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "argv",
    [["--scope", "foo"], ["--scope", "nodes:read streams:read"], ["node", "--subject", UID, "--scope", "act_as"]],
)
def test_a_scope_that_is_not_known_is_refused_and_the_known_are_named(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["token", *argv]) == ExitCode.USAGE
    written = capsys.readouterr()
    assert written.out == ""
    assert f"“{argv[-1]}”" in written.err
    assert ("known: node\n" if argv[0] == "node" else "known: nodes:read, nodes:call") in written.err


@pytest.mark.parametrize(
    "argv", [["node"], ["node", "--subject", "x"], ["--lifetime-s", "0"], ["--lifetime-s", "nan"], ["other"]]
)
def test_a_token_that_would_open_nothing_is_not_made(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", *argv]) == ExitCode.USAGE
    assert capsys.readouterr().out == ""


def test_where_an_issuer_has_the_say_no_development_token_is_made(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKYGW_JWKS_FILE", "/etc/keys.json")
    monkeypatch.setenv("SKYGW_TOKEN_ISSUER", "https://auth.example")
    assert run(["token"]) == ExitCode.USAGE
    assert "get a token from the issuer" in capsys.readouterr().err
