"""`skygw command`: what it asks, what it tells on the way and at the end, and how it ends."""

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from tests.cli.fake_gateway import Answer, FakeGateway, as_json

TELESCOPE, SECOND, MOUNT, NODE, COMMAND, LEASE, SECRET = (str(uuid4()) for _ in range(7))
POST, GET = "POST /internal/commands", f"GET /internal/commands/{COMMAND}"
PATIENCE_S = 10.0
PROOF = {"devices": [{"device_uid": MOUNT, "state": "parked", "basis": "read_back", "samples": 2, "settled_ms": 202}]}
STATES = ("received", "written", "running", "completed")
A_NODE: dict[str, Any] = {"uid": NODE, "name": "North", "telescopes": [TELESCOPE], "devices": [MOUNT]}
PARK = ("command", TELESCOPE, "mount.park", "--kind", "telescope", "--id", COMMAND)


def record(state: str, *steps: str, outcome: str = "in_progress", **members: Any) -> dict[str, Any]:
    return {
        "commandId": COMMAND,
        "command": {"command_type": "mount.park"},
        "telescopeUid": TELESCOPE,
        "state": state,
        "outcome": outcome,
        "createdAt": "2026-07-01T03:00:00Z",
        "deadlineAt": "2026-07-01T03:05:00Z",
        "transitions": [{"at": "2026-07-01T03:00:00.5Z", "state": step, "hop": "gateway"} for step in steps],
        **members,
    }


DONE = record("completed", *STATES, outcome="succeeded", proof=PROOF)


def nodes(*found: dict[str, Any]) -> Answer:
    return as_json({"items": list(found), "total": len(found), "page": 1, "size": 100, "pages": 1})


def problem(code: str, status: int = 409, outcome: str = "not_sent") -> Answer:
    return as_json({"detail": f"It is {code}.", "code": code, "outcome": outcome, "retry": "never"}, status)


def test_it_sends_what_was_given_and_ends_with_the_proof_and_a_sentence(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(POST, as_json(DONE))
    assert run([*PARK, "--timeout", "60", "--graph-revision", "3", "--lease", SECRET]) == ExitCode.OK
    (body,) = gateway.bodies
    written = capsys.readouterr()

    assert body == {
        "telescopeUid": TELESCOPE,
        "commandId": COMMAND,
        "command": {"command_type": "mount.park"},
        "origin": {"program": "skygw command"},
        "timeoutS": 60.0,
        "waitS": 0.5,
        "leaseUid": SECRET,
        "graphRevision": 3,
    }
    assert [" ".join(line.split()) for line in written.out.splitlines()] == [
        "DEVICE STATE BASIS SAMPLES SETTLED MS",
        f"{MOUNT} parked read_back 2 202",
        "mount.park succeeded; every device was read back.",
    ]


def test_each_step_is_told_once_as_it_comes(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(POST, as_json(record("accepted", *STATES[:2], "accepted"), 202))
    gateway.on(
        GET, as_json(record("running", *STATES[:3], progress=0.4)), problem("routing_unavailable", 503), as_json(DONE)
    )
    assert run([*PARK, "--json"]) == ExitCode.OK
    written = capsys.readouterr()

    assert json.loads(written.out) == DONE
    told = written.err.splitlines()
    assert [line.split()[1] for line in told if line.startswith("03:00:00.500")] == [
        *("received", "written", "accepted", "running", "completed")
    ]
    assert [line for line in told if "routing_unavailable" in line] == [
        "What becomes of it cannot be seen now: It is routing_unavailable."
    ]


@pytest.mark.parametrize(
    ("ended", "code", "says"),
    [
        (record("completed", outcome="succeeded"), ExitCode.OK, "succeeded: the node says so (no proof given)."),
        (
            record("failed", outcome="failed", error={"reason": "stuck", "message": "It is stuck"}),
            ExitCode.FAILED,
            "failed: It is stuck.",
        ),
        (record("rejected", outcome="refused"), ExitCode.REFUSED, "was refused by the node, which did nothing."),
        (record("expired", outcome="not_sent"), ExitCode.NOT_SENT, "was never sent."),
        (
            record("canceled", outcome="canceled", canceled="before_start"),
            ExitCode.CANCELED,
            "was canceled before it started: nothing has moved.",
        ),
        (
            record("canceled", outcome="canceled", canceled="interrupted"),
            ExitCode.CANCELED,
            "was canceled on the way, and whether its devices stand is not known (no proof given).",
        ),
        (record("unknown", outcome="unknown"), ExitCode.UNKNOWN, "Do not send it again."),
        (record("running", progress=0.4), ExitCode.GOES_ON, "goes on (running, 40%)"),
        (record("dreaming", outcome="dreamt"), ExitCode.UNKNOWN, "goes on (dreaming)"),
    ],
    ids=lambda value: value.get("state") if isinstance(value, dict) else None,
)
def test_it_ends_with_what_is_known_and_no_more(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], ended: dict[str, Any], code: ExitCode, says: str
) -> None:
    gateway.on(POST, as_json(ended, 202))
    assert run([*PARK, "--wait-s", "0"]) == code
    assert says in capsys.readouterr().out.splitlines()[-1]
    assert len(gateway.asked) == 1


def test_what_the_gateway_refuses_was_not_sent_and_says_what_to_do(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(POST, problem("lease_required"))
    assert run([*PARK, "--json"]) == ExitCode.NOT_SENT
    written = capsys.readouterr()
    assert "It is lease_required. Take control with “skygw lease acquire”" in written.err
    told = json.loads(written.out)
    assert (told["code"], told["outcome"]) == ("lease_required", "not_sent")


def test_a_lost_answer_is_asked_for_again_with_the_same_id(gateway: FakeGateway) -> None:
    gateway.on(POST, Answer(200, b"{", promised=100), as_json(DONE))
    assert run([*PARK]) == ExitCode.OK
    assert [body["commandId"] for body in gateway.bodies] == [COMMAND, COMMAND]


def test_where_no_answer_comes_at_all_the_record_is_looked_for(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(POST, Answer(200, b"{", promised=100))
    gateway.on(GET, problem("not_found", 404), as_json(DONE))
    assert run([*PARK, "--timeout-s", "0.3"]) == ExitCode.OK
    gateway.on(GET, problem("not_found", 404))
    assert run([*PARK, "--timeout-s", "0.3", "--wait-s", "0.7"]) == ExitCode.UNKNOWN
    assert f"“--id {COMMAND}” it is the same command." in capsys.readouterr().err


def test_a_record_that_may_not_be_read_is_not_guessed(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(POST, as_json(record("written"), 202))
    gateway.on(GET, problem("forbidden", 403))
    assert run([*PARK]) == ExitCode.GOES_ON
    assert "What becomes of it cannot be seen now: It is forbidden." in capsys.readouterr().err


def test_the_target_is_found_among_what_is_connected_and_then_in_the_records(gateway: FakeGateway) -> None:
    gateway.on(POST, as_json(DONE))
    gateway.on("GET /internal/nodes", nodes(A_NODE))
    assert run(["command", MOUNT.upper(), "mount.park"]) == ExitCode.OK
    assert len(gateway.asked) == 2
    gateway.on("GET /internal/nodes", nodes(), nodes(A_NODE))
    assert run(["command", TELESCOPE, "mount.park"]) == ExitCode.OK
    gateway.on("GET /internal/nodes", nodes(A_NODE))
    assert run(["command", "North", "mount.park"]) == ExitCode.OK
    assert run(["command", NODE, "mount.park"]) == ExitCode.OK
    targets = [(body.get("deviceUid"), body.get("telescopeUid")) for body in gateway.bodies]
    assert targets == [(MOUNT, None), (None, TELESCOPE), (None, TELESCOPE), (None, TELESCOPE)]


@pytest.mark.parametrize(
    ("node", "which", "says"),
    [
        ({**A_NODE, "telescopes": [TELESCOPE, SECOND]}, "North", f"say which: {TELESCOPE}, {SECOND}."),
        ({**A_NODE, "telescopes": []}, NODE, f"name a device of it by its uid: {MOUNT}."),
        (A_NODE, SECOND, f"No telescope, device or installation has the uid {SECOND}"),
    ],
)
def test_a_target_that_is_not_one_is_not_guessed(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], node: dict[str, Any], which: str, says: str
) -> None:
    gateway.on("GET /internal/nodes", nodes(node))
    assert run(["command", which, "mount.park"]) == ExitCode.NOT_SENT
    assert says in capsys.readouterr().err
    assert gateway.bodies == []


def test_a_lease_is_taken_for_the_command_and_given_back_before_it_is_reported(gateway: FakeGateway) -> None:
    lease = {"id": LEASE, "fence": 4, "durationS": 60.0, "deadmanS": None, "onExpiry": "finish", "held": True}
    gateway.on("GET /internal/nodes", nodes(A_NODE))
    gateway.on("POST /internal/leases", as_json(lease, 201))
    gateway.on(POST, as_json(DONE))
    gateway.on(f"POST /internal/leases/{LEASE}/release", as_json({**lease, "held": False}))
    assert run(["command", MOUNT, "mount.park", "--take-lease", "--kind", "device"]) == ExitCode.OK
    acquired, sent, released = gateway.bodies
    secret = acquired.pop("leaseUid")

    assert acquired == {"telescopeUid": TELESCOPE, "durationS": 60.0, "onExpiry": "finish"}
    assert (sent["deviceUid"], sent["leaseUid"], released) == (MOUNT, secret, {"leaseUid": secret})


def test_a_lease_that_is_lost_on_the_way_does_not_hide_what_became_of_the_command(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    lease = {"id": LEASE, "fence": 4, "durationS": 0.9, "deadmanS": None, "onExpiry": "finish", "held": True}
    gateway.on("POST /internal/leases", as_json(lease, 201))
    gateway.on(f"POST /internal/leases/{LEASE}/renew", problem("lease_expired"))
    gateway.on(POST, as_json(record("running", *STATES[:3]), 202))
    gateway.on(GET, as_json(record("running", *STATES[:3])), as_json(DONE))
    assert run([*PARK, "--take-lease"]) == ExitCode.OK
    written = capsys.readouterr()
    assert "skygw: control was lost meanwhile: It is lease_expired." in written.err
    assert written.out.splitlines()[-1] == "mount.park succeeded; every device was read back."
    assert gateway.asked.count(POST) == 1


def test_an_id_that_is_known_is_said_to_be(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on(POST, as_json({**DONE, "duplicate": True}))
    assert run([*PARK]) == ExitCode.OK
    assert capsys.readouterr().err.startswith("This id is known: nothing is sent")


def test_a_lease_that_somebody_has_is_not_taken_and_nothing_is_sent(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /internal/leases", problem("lease_held"))
    assert run([*PARK, "--take-lease"]) == ExitCode.NOT_SENT
    assert gateway.asked == ["POST /internal/leases"]
    assert capsys.readouterr().err == "skygw: It is lease_held.\n"


def test_the_lease_of_the_environment_is_shown(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKYGW_LEASE_UID", SECRET)
    gateway.on(POST, as_json(DONE))
    assert run([*PARK]) == ExitCode.OK
    assert gateway.bodies[0]["leaseUid"] == SECRET


def test_a_dry_run_tells_everything_in_the_way_and_sends_nothing(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    away = {"detail": "It is away.", "code": "node_offline", "outcome": "not_sent", "retry": "after", "details": {}}
    held = {**away, "detail": "Anna has control.", "code": "lease_held"}
    answer = {"commandId": COMMAND, "valid": False, "duplicate": False, "refusals": [away, held]}
    gateway.on(POST, as_json(answer))
    assert run([*PARK, "--dry-run"]) == ExitCode.NOT_SENT
    assert capsys.readouterr().out.splitlines() == ["node_offline: It is away.", "lease_held: Anna has control."]
    assert run([*PARK, "--dry-run", "--json"]) == ExitCode.NOT_SENT
    assert [item["code"] for item in json.loads(capsys.readouterr().out)["refusals"]] == ["node_offline", "lease_held"]
    gateway.on(POST, as_json({**answer, "valid": True, "refusals": []}))
    assert run([*PARK, "--dry-run"]) == ExitCode.OK
    assert capsys.readouterr().out == "Nothing would refuse it now.\n"
    assert [body["validateOnly"] for body in gateway.bodies] == [True] * 3


def test_a_type_that_is_not_known_is_carried_with_a_word_about_it(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(POST, as_json(DONE))
    assert run(["command", TELESCOPE, "mount.piont", "depth=3", "--kind", "telescope"]) == ExitCode.OK
    assert gateway.bodies[0]["command"] == {"command_type": "mount.piont", "depth": 3}
    assert "mount.piont is not known here: the node decides. Was mount.point meant?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        [TELESCOPE],
        [TELESCOPE, "mount.park", "fast"],
        [TELESCOPE, "mount.point"],
        [TELESCOPE, "camera.exposure.start", "duration_s=-1"],
        [TELESCOPE, "mount.park", "--timeout-s", "0"],
        [TELESCOPE, "mount.park", "--wait-s", "-1"],
        [TELESCOPE, "mount.park", "--take-lease", "--lease-uid", SECRET],
        [TELESCOPE, "mount.park", "--lease-uid", "mine"],
        [TELESCOPE, "mount.stop", "--dry-run"],
        [TELESCOPE, "mount.park", "--id", "7"],
        ["North", "mount.park", "--kind", "telescope"],
        ["show", "7"],
        ["cancel", COMMAND, "--wait-s", "9999"],
        ["list", "--count", "0"],
        ["resolve", COMMAND, "failed"],
    ],
    ids=lambda argv: " ".join(argv[1:]),
)
def test_what_makes_no_sense_is_not_even_asked(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], wrong: list[str]
) -> None:
    assert run(["command", *wrong]) == ExitCode.USAGE
    assert gateway.asked == []
    assert capsys.readouterr().err.startswith("skygw: ")


@contextmanager
def ctrl_c_when(fake: FakeGateway, *conditions: Callable[[], bool]) -> Iterator[None]:
    """A Ctrl-C as soon as each of these is true, in turn."""

    def press() -> None:
        for condition in conditions:
            with fake.came:
                if fake.came.wait_for(condition, PATIENCE_S):
                    os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_ctrl_c_says_that_the_command_goes_on_and_leaves_it_alone(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(POST, as_json(record("running", *STATES[:3]), 202))
    gateway.on(GET, as_json(record("running", *STATES[:3])))
    with ctrl_c_when(gateway, lambda: len(gateway.asked) >= 2):
        assert run([*PARK]) == ExitCode.INTERRUPTED
    written = capsys.readouterr()
    assert (
        f"The command goes on. Ctrl-C again within 3 s cancels it, and later “skygw command cancel {COMMAND}”"
        in written.err
    )
    assert "mount.park goes on (running)" in written.out
    assert not any("cancel" in asked for asked in gateway.asked)


@pytest.mark.parametrize("flags", [[], ["--cancel-on-ctrl-c"]])
def test_a_second_ctrl_c_cancels_and_so_does_the_first_where_that_was_agreed(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    canceled = record("canceled", *STATES[:3], "canceled", outcome="canceled", canceled="interrupted", proof=PROOF)
    receipt = {"commandId": COMMAND, "receipt": "interrupted", "state": "canceled", "proof": PROOF}
    gateway.on(POST, as_json(record("running", *STATES[:3]), 202))
    gateway.on(GET, *[as_json(record("running", *STATES[:3]))] * 3, as_json(canceled))
    gateway.on(f"{POST}/{COMMAND}/cancel", as_json(receipt))
    presses = [lambda: len(gateway.asked) >= 2, lambda: len(gateway.asked) >= 3][: 1 if flags else 2]
    with ctrl_c_when(gateway, *presses):
        code = run([*PARK, "--json", *flags])
    written = capsys.readouterr()

    assert f"POST /internal/commands/{COMMAND}/cancel" in gateway.asked
    assert ("goes on" in written.err) is not bool(flags)
    assert "It was interrupted, and its devices were read back." in written.err
    told = json.loads(written.out)
    assert told["receipt"] == "interrupted"
    assert code == (ExitCode.CANCELED if told["state"] == "canceled" else ExitCode.GOES_ON)
