"""`doctor` finds what would go wrong, says what to do about it, and changes nothing."""

import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from skygw.cli.checks import Verdict, check_data_dir, check_port, check_tls
from skygw.cli.main import run
from skygw.cli.remote_checks import Clocks, check_database, check_keys, check_listener
from skygw.cli.terminal import ExitCode
from skygw.settings import Settings
from tests.cli.fake_gateway import Answer, FakeGateway, as_json


def certified(tmp_path: Path) -> Settings:
    certificate = trustme.CA().issue_cert("localhost", not_after=datetime(2031, 1, 1, tzinfo=UTC))
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "c.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "k.pem")
    return Settings(tls_certificate=tmp_path / "c.pem", tls_key=tmp_path / "k.pem")


def test_a_data_directory_that_can_be_made_is_well_and_is_not_made(tmp_path: Path) -> None:
    assert check_data_dir(tmp_path / "deep/data").verdict is Verdict.OK
    assert list(tmp_path.iterdir()) == []


def test_a_data_directory_others_can_change_or_that_is_none_is_wrong(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert "chmod go-w" in check_data_dir(tmp_path).advice
    (tmp_path / "file").touch()
    assert check_data_dir(tmp_path / "file").verdict is Verdict.WRONG


def test_a_taken_port_is_wrong_and_a_free_one_is_left_free() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = check_port("node", "127.0.0.1", port)
    assert taken.verdict is Verdict.WRONG
    assert "SKYGW_NODE_PORT" in taken.advice
    assert check_port("node", "127.0.0.1", port).verdict is Verdict.OK
    assert check_port("node", "127.0.0.1", port).verdict is Verdict.OK


async def test_a_port_at_which_a_gateway_answers_is_well(gateway: FakeGateway) -> None:
    settings = Settings(node_port=int(gateway.url.rpartition(":")[2]))
    assert (await check_listener("node", settings)).verdict is Verdict.WRONG
    gateway.on("GET /healthz", as_json({"status": "ok"}))
    assert (await check_listener("node", settings)).verdict is Verdict.OK


def test_an_address_of_another_machine_is_wrong() -> None:
    assert "SKYGW_INTERNAL_HOST" in check_port("internal", "192.0.2.1", 5003).advice


@pytest.mark.parametrize(
    ("before", "verdict"),
    [(timedelta(days=90), Verdict.OK), (timedelta(days=3), Verdict.WARNING), (timedelta(0), Verdict.WRONG)],
)
def test_a_certificate_is_told_before_it_expires(tmp_path: Path, before: timedelta, verdict: Verdict) -> None:
    now = datetime(2031, 1, 1, tzinfo=UTC) - before
    assert check_tls("node", certified(tmp_path), now=now).verdict is verdict


def test_a_certificate_that_does_not_load_is_wrong(tmp_path: Path) -> None:
    settings = certified(tmp_path)
    (tmp_path / "k.pem").write_text("no key")
    assert check_tls("node", settings).verdict is Verdict.WRONG
    (tmp_path / "k.pem").unlink()
    assert check_tls("internal", settings).verdict is Verdict.WRONG


@pytest.mark.parametrize(
    ("ahead", "verdict"), [(0.5, Verdict.OK), (-10.0, Verdict.WARNING), (45.0, Verdict.WRONG), (-45.0, Verdict.WRONG)]
)
def test_a_clock_that_differs_is_told(ahead: float, verdict: Verdict) -> None:
    clocks = Clocks(now=lambda: 1000.0)
    clocks.heard("the database", 1000.0)
    clocks.heard("the issuer", 1000.0 + ahead)
    assert clocks.check().verdict is verdict


async def test_a_database_that_does_not_answer_is_wrong_and_its_password_stays_secret() -> None:
    settings = Settings(database_url="postgresql://gateway:hunter2@127.0.0.1:1/skynet")
    [check] = await check_database(settings, Clocks())
    assert check.verdict is Verdict.WRONG
    assert "hunter2" not in check.found + check.advice


async def test_an_issuers_keys_are_read_and_its_clock_is_heard(gateway: FakeGateway) -> None:
    key = {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "kid": "1",
        "alg": "EdDSA",
    }
    gateway.on("GET /jwks", as_json({"keys": [key]}))
    clocks = Clocks()
    [check] = await check_keys(Settings(jwks_url=f"{gateway.url}/jwks", token_issuer="x"), clocks)
    assert check.verdict is Verdict.OK
    assert clocks.check().found == "agrees with the issuer"


@pytest.mark.parametrize("answer", [Answer(404, b"{}"), Answer(200, b"<html>"), as_json({"keys": []})])
async def test_an_issuer_without_usable_keys_is_wrong(gateway: FakeGateway, answer: Answer) -> None:
    gateway.on("GET /jwks", answer)
    [check] = await check_keys(Settings(jwks_url=f"{gateway.url}/jwks", token_issuer="x"), Clocks())
    assert check.verdict is Verdict.WRONG


async def test_an_issuer_that_does_not_answer_is_wrong() -> None:
    [check] = await check_keys(Settings(jwks_url="http://127.0.0.1:1/jwks", token_issuer="x"), Clocks())
    assert "does not answer" in check.found


def test_the_whole_is_printed_and_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--node-port", "0", "--internal-port", "0", "--json"]) == ExitCode.OK
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert {"settings", "data directory", "node port", "database", "token keys", "clock"} <= {
        check["name"] for check in report["checks"]
    }
    assert not (tmp_path / "data").exists()


def test_bad_settings_are_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--dead-after-s", "1"]) == ExitCode.FAILED
    assert "SKYGW_DEAD_AFTER_S" in capsys.readouterr().out
