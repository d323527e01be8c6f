"""Tokens of the development key say what was asked, and are made only where they open something."""

import json
from pathlib import Path
from uuid import uuid4

import jwt
import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode


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
    uid = str(uuid4())
    assert run(["token", "node", "--subject", uid]) == ExitCode.OK
    made = claims(capsys.readouterr().out.strip())
    assert (made["sub"], made["aud"], made["scope"]) == (uid, "sky-node-gateway", "node")


def test_the_key_of_a_named_data_directory_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", "--data-dir", str(tmp_path / "elsewhere")]) == ExitCode.OK
    assert claims(capsys.readouterr().out.strip())["sub"] == "skygw-cli"
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["development-key.pem"]


@pytest.mark.parametrize(
    "argv", [["node"], ["node", "--subject", "x"], ["--lifetime-s", "0"], ["--lifetime-s", "nan"], ["other"]]
)
def test_a_token_that_would_open_nothing_is_not_made(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["token", *argv]) == ExitCode.USAGE
    assert capsys.readouterr().out == ""


def test_where_an_issuer_has_the_say_no_development_token_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SKYGW_JWKS_FILE", "/etc/keys.json")
    monkeypatch.setenv("SKYGW_TOKEN_ISSUER", "https://auth.example")
    assert run(["token"]) == ExitCode.USAGE
    assert "get a token from the issuer" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
