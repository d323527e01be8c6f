"""`skygw command show`, `list`, `cancel`, `resolve` and `types`."""

import json
from typing import Any

import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from skygw.protocol.command_catalogue import KNOWN
from tests.cli.fake_gateway import FakeGateway, as_json
from tests.cli.test_command import A_NODE, COMMAND, DONE, GET, MOUNT, NODE, POST, PROOF, STATES, nodes, problem, record


def test_show_tells_the_steps_the_proof_and_a_sentence(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(GET, as_json(DONE))
    assert run(["command", "show", COMMAND]) == ExitCode.OK
    *steps, _, device, last = capsys.readouterr().out.splitlines()
    assert [step.split()[:2] for step in steps] == [["03:00:00.500", state] for state in STATES]
    assert device.split()[:3] == [MOUNT, "parked", "read_back"]
    assert last == "mount.park succeeded; every device was read back."


def test_show_follows_a_command_to_its_end(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(GET, as_json(record("running", "received", progress=0.5)), as_json(DONE))
    assert run(["command", "show", COMMAND, "--follow", "--json"]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out) == DONE
    assert gateway.asked == [GET, GET]


def test_a_command_nobody_knows_is_no_state_of_one(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(GET, problem("not_found", 404))
    assert run(["command", "show", COMMAND]) == ExitCode.FAILED
    assert capsys.readouterr().err == "skygw: It is not_found.\n"


def test_list_is_a_line_for_each_and_no_more_than_asked_for(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    anna: dict[str, Any] = {"service": "planner", "actor": {"uid": "anna", "kind": "user"}}
    running = record("running", progress=0.25, deviceUid=MOUNT, telescopeUid=None, **anna)
    gateway.on("GET /internal/nodes", nodes(A_NODE))
    gateway.on(
        "GET /internal/commands", as_json({"items": [running, DONE], "total": 9, "page": 1, "size": 2, "pages": 5})
    )
    assert run(["command", "list", "--state", "running", "--node", "North", "--count", "2"]) == ExitCode.OK
    _, first, _ = capsys.readouterr().out.splitlines()
    assert " ".join(first.split()) == f"2026-07-01 03:00:00 mount.park running, 25% {MOUNT} planner for anna {COMMAND}"
    assert gateway.asked[-1] == f"GET /internal/commands?page=1&size=2&state=running&installId={NODE}"


@pytest.mark.parametrize(
    ("word", "code", "says"),
    [
        ("canceled_before_start", ExitCode.OK, "nothing has moved"),
        ("interrupted", ExitCode.OK, "read back"),
        ("already_ended", ExitCode.OK, "It had ended already. (Its state: canceled.)"),
        ("finished_anyway", ExitCode.FAILED, "has finished"),
        ("not_cancelable", ExitCode.REFUSED, "cannot be canceled"),
        ("unknown", ExitCode.UNKNOWN, "not known"),
        ("blown_away", ExitCode.UNKNOWN, "not known"),
    ],
)
def test_cancel_ends_with_what_the_receipt_says(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], word: str, code: ExitCode, says: str
) -> None:
    receipt = {"commandId": COMMAND, "receipt": word, "state": "canceled", "proof": PROOF}
    gateway.on(f"{POST}/{COMMAND}/cancel", as_json(receipt))
    assert run(["command", "cancel", COMMAND, "--mode", "immediate", "--grace-s", "2", "--wait", "5"]) == code
    assert gateway.bodies == [{"mode": "immediate", "graceS": 2.0, "waitS": 5.0}]
    *_, device, last = capsys.readouterr().out.splitlines()
    assert device.split()[0] == MOUNT
    assert says in last


def test_resolve_closes_what_is_unknown_and_says_how_that_is_known(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(f"{POST}/{COMMAND}/resolve", as_json(record("failed", outcome="failed")), problem("illegal_transition"))
    assert run(["command", "resolve", COMMAND, "failed", "--reason", "disk lost"]) == ExitCode.OK
    assert gateway.bodies == [{"outcome": "failed", "reason": "disk lost"}]
    assert capsys.readouterr().out == "It is closed as failed: disk lost\n"
    assert run(["command", "resolve", COMMAND, "failed", "--reason", "again"]) == ExitCode.FAILED
    assert capsys.readouterr().err == "skygw: It is illegal_transition.\n"


def test_types_lists_every_known_type_with_its_members(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["command", "types"]) == ExitCode.OK
    told = capsys.readouterr().out
    assert all(model.command_type in told for model in KNOWN)
    assert "`" not in told
    assert "duration_s (exposure time, seconds; 0 is a bias frame, ≥ 0); binning?" in told
