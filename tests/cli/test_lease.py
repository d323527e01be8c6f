"""`skygw lease`: what it asks, what it prints, and that a secret is given without being seen."""

import json
from typing import Any
from uuid import uuid4

import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from tests.cli.fake_gateway import FakeGateway, as_json

TELESCOPE, ROOF, LEASE, SECRET = (str(uuid4()) for _ in range(4))
HELD: dict[str, Any] = {
    "id": LEASE,
    "leaseUid": SECRET,
    "telescopeUid": TELESCOPE,
    "holder": {"service": "operator", "actor": {"uid": "anna", "kind": "user"}},
    "held": True,
    "expiresInS": 299.6,
}
OVER = {**HELD, "leaseUid": None, "held": False, "ended": "broken", "reason": "storm"}


def test_acquire_prints_the_lease_and_its_secret_once(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("POST /internal/leases", as_json(HELD, 201))
    assert run(["lease", "acquire", TELESCOPE, "--duration-s", "60", "--deadman-s", "5", "--on-expiry", "stop"]) == 0
    assert gateway.bodies == [{"telescopeUid": TELESCOPE, "durationS": 60, "onExpiry": "stop", "deadmanS": 5}]
    assert capsys.readouterr().out.splitlines() == [
        f"lease: {LEASE}",
        f"leaseUid (secret): {SECRET}",
        "held for 300 s more",
    ]


def test_acquire_takes_a_shared_device_and_speaks_json(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /internal/leases", as_json(HELD, 201))
    assert run(["lease", "acquire", "--device", ROOF, "--json"]) == ExitCode.OK
    assert gateway.bodies == [{"deviceUid": ROOF, "durationS": 300, "onExpiry": "safe_shutdown"}]
    assert json.loads(capsys.readouterr().out) == HELD


@pytest.mark.parametrize("how", ["--lease-uid", "environment"])
def test_the_holder_shows_its_secret(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    shows = ["--lease-uid", SECRET] if how == "--lease-uid" else []
    if how == "environment":
        monkeypatch.setenv("SKYGW_LEASE_UID", SECRET)
    gateway.on(f"POST /internal/leases/{LEASE}/renew", as_json(HELD))
    gateway.on(f"POST /internal/leases/{LEASE}/release", as_json(OVER))
    assert run(["lease", "renew", LEASE, "--duration-s", "900", *shows]) == ExitCode.OK
    assert run(["lease", "release", LEASE, *shows]) == ExitCode.OK
    assert gateway.bodies == [{"leaseUid": SECRET, "durationS": 900}, {"leaseUid": SECRET}]


def test_break_says_why_and_what_became_of_it(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(f"POST /internal/leases/{LEASE}/break", as_json(OVER))
    assert run(["lease", "break", LEASE, "--reason", "storm"]) == ExitCode.OK
    assert gateway.bodies == [{"reason": "storm"}]
    assert capsys.readouterr().out.splitlines()[-1] == "broken: storm"


def test_list_shows_who_has_control_and_on_demand_what_is_over(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/leases", as_json({"items": [HELD, OVER], "total": 2, "page": 1, "size": 100, "pages": 1}))
    assert run(["lease", "list", "--all"]) == ExitCode.OK
    _, held, over = capsys.readouterr().out.splitlines()
    assert " ".join(held.split()) == f"{TELESCOPE} telescope operator for anna held for 300 s more {LEASE}"
    assert "broken: storm" in over
    assert run(["lease", "list", "--json"]) == ExitCode.OK
    assert [item["id"] for item in json.loads(capsys.readouterr().out)] == [LEASE, LEASE]
    assert [asked.partition("?")[2] for asked in gateway.asked] == ["page=1&size=100", "page=1&size=100&held=true"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["acquire"],
        ["acquire", TELESCOPE, "--device", ROOF],
        ["acquire", "dome"],
        ["renew", LEASE],
        ["release", LEASE, "--lease-uid", "mine"],
        ["break", "7", "--reason", "x"],
        ["break", LEASE],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_not_even_asked(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrong: list[str]
) -> None:
    monkeypatch.delenv("SKYGW_LEASE_UID", raising=False)
    assert run(["lease", *wrong]) == ExitCode.USAGE
    assert gateway.asked == []
    assert capsys.readouterr().err.startswith("skygw: ")


def test_a_refusal_is_told_with_its_reason(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("POST /internal/leases", as_json({"detail": "Anna has control.", "code": "lease_held"}, 409))
    assert run(["lease", "acquire", TELESCOPE]) == ExitCode.FAILED
    assert "Anna has control." in capsys.readouterr().err
