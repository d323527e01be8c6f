"""`nodes`, `why`, `call` and `stop` against a gateway: what they ask, what they print, how they end."""

import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from tests.cli.fake_gateway import Answer, FakeGateway, as_json

UID = str(uuid4())
TELESCOPE, OTHER = str(uuid4()), str(uuid4())
NODE: dict[str, Any] = {"uid": UID, "name": "North dome", "connected": True, "telescopes": [TELESCOPE, OTHER]}
PROOF = {"devices": [{"device_uid": "mount-1", "state": "parked", "basis": "read_back", "settled_ms": 1200}]}


def page(*nodes: dict[str, Any], number: int = 1, pages: int = 1) -> Answer:
    return as_json({"items": list(nodes), "total": len(nodes), "page": number, "size": 100, "pages": pages})


def test_nodes_lists_every_page(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /internal/nodes", page(NODE, pages=2), page({**NODE, "name": "South", "connected": False}, pages=2))
    assert run(["nodes"]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:1] for line in lines[1:]] == [["North"], ["South"]]
    assert gateway.tokens == ["Bearer a-token"] * 2


def test_nodes_shows_the_telescopes_as_stop_takes_them(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page(NODE))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["nodes"]) == ExitCode.OK
    shown = capsys.readouterr().out.splitlines()[1].split()[-2:]
    assert run(["stop", *shown]) == ExitCode.OK
    assert sorted(body["telescopeUid"] for body in gateway.bodies) == sorted([TELESCOPE, OTHER])


def test_a_name_of_a_nodes_own_choice_cannot_steer_the_list(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page({**NODE, "name": "\x1b[2Jgone", "softwareVersion": "1\n\u202e"}))
    assert run(["nodes"]) == ExitCode.OK
    written = capsys.readouterr().out
    assert r"\x1b[2Jgone" in written
    assert not set(written) & {"\x1b", "\u202e"}


@pytest.mark.parametrize("which", [UID, "7"])
def test_why_answers_with_a_sentence_and_the_next_action(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    gateway.on(f"GET /internal/nodes/{which}", as_json({**NODE, "connected": False}))
    assert run(["why", which]) == ExitCode.OK
    sentence, action, stop = capsys.readouterr().out.splitlines()
    assert sentence.startswith("North dome has not connected")
    assert action.startswith("Next: ")
    assert stop == f"To stop what it moves: skygw stop {TELESCOPE} {OTHER}"


def test_why_finds_a_node_by_name_and_speaks_json(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /internal/nodes", page(NODE))
    assert run(["why", "North dome", "--json"]) == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["healthy"] is True
    assert told["telescopes"] == [TELESCOPE, OTHER]


def test_why_says_nothing_of_stopping_where_there_is_no_telescope(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(f"GET /internal/nodes/{UID}", as_json({**NODE, "telescopes": []}))
    assert run(["why", UID]) == ExitCode.OK
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_name_nobody_has_is_not_found(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /internal/nodes", page(NODE))
    assert run(["why", "Nowhere"]) == ExitCode.FAILED
    assert "No installation has the name “Nowhere”" in capsys.readouterr().err


def test_a_refusal_of_the_gateway_is_told_in_its_own_words(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = {"detail": "The token lacks the scope “nodes:read”.", "code": "forbidden", "retry": "never"}
    gateway.on("GET /internal/nodes", as_json(problem, 403))
    assert run(["nodes", "--json"]) == ExitCode.FAILED
    written = capsys.readouterr()
    assert json.loads(written.out) == {**problem, "status": 403}
    assert "nodes:read" in written.err


def test_an_invalid_request_names_its_fields(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    fields = [{"type": "missing", "loc": ["body", "operation"], "msg": "Field required", "input": {}}]
    gateway.on("GET /internal/nodes", as_json({"detail": fields, "code": "invalid"}, 422))
    assert run(["nodes"]) == ExitCode.FAILED
    assert "body.operation: Field required" in capsys.readouterr().err


def test_something_else_at_the_address_is_not_taken_for_a_gateway(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", Answer(200, b"<html>", "text/html"))
    assert run(["nodes"]) == ExitCode.FAILED
    assert "is no gateway" in capsys.readouterr().err


@pytest.mark.usefixtures("development_key")
def test_a_gateway_that_does_not_run_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        assert run(["nodes", "--url", url]) == ExitCode.FAILED
    assert f"No gateway answers at {url}" in capsys.readouterr().err


def test_a_token_never_shows_in_an_error(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["nodes", "--token", "hunter2"]) == ExitCode.FAILED
    written = capsys.readouterr()
    assert gateway.tokens == ["Bearer hunter2"]
    assert "hunter2" not in written.out + written.err


@pytest.mark.usefixtures("development_key")
def test_without_a_token_the_development_key_is_used_on_this_machine_only(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SKYGW_TOKEN")
    gateway.on("GET /internal/nodes", page(NODE))
    assert run(["nodes"]) == ExitCode.OK
    assert str(gateway.tokens[0]).startswith("Bearer eyJ")
    assert run(["nodes", "--url", "http://192.0.2.1:5003"]) == ExitCode.USAGE
    assert "set SKYGW_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["nodes"], ["why", UID], ["call", UID, "x"], ["stop", UID], ["watch", "node_event"]])
def test_where_there_is_no_development_key_that_is_said_and_nothing_is_written(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*argv, "--data-dir", str(tmp_path / "nowhere")]) == ExitCode.USAGE
    assert capsys.readouterr().err.startswith(f"skygw: There is no development key in {tmp_path / 'nowhere'}")
    assert list(tmp_path.iterdir()) == []


def test_a_call_saves_its_answer_whole(
    gateway: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = bytes(range(256)) * 1000
    gateway.on(f"GET /internal/nodes/{UID}", as_json(NODE))
    gateway.on(f"POST /internal/nodes/{UID}/direct", Answer(200, content, "application/fits"))
    file = tmp_path / "frame.fits"
    argv = ["call", UID, "asset.read", "--params", '{"asset_uid": "a"}', "--output", str(file), "--timeout-s", "5"]
    assert run([*argv, "--json"]) == ExitCode.OK
    assert file.read_bytes() == content
    assert json.loads(capsys.readouterr().out)["bytes"] == len(content)
    [body] = gateway.bodies
    assert body.pop("requestId").startswith("cli-")
    assert body == {"operation": "asset.read", "params": {"asset_uid": "a"}, "timeoutS": 5.0, "connectWaitS": 0.0}


def test_a_call_that_breaks_off_leaves_no_file_and_asks_what_became_of_it(
    gateway: FakeGateway, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skygw.cli.call.uuid4", lambda: "7")
    gateway.on(f"GET /internal/nodes/{UID}", as_json(NODE))
    gateway.on(f"POST /internal/nodes/{UID}/direct", Answer(200, b"half", "application/fits", promised=8))
    gateway.on("GET /internal/calls/cli-7", as_json({"outcome": "unknown", "reason": "link_lost"}))
    assert run(["call", UID, "asset.read", "--output", str(tmp_path / "frame.fits")]) == ExitCode.FAILED
    assert list(tmp_path.glob("frame*")) == []
    assert "The answer broke off: link_lost, outcome unknown." in capsys.readouterr().err


def test_a_call_with_json_holds_a_text_answer_and_refuses_a_binary_one(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(f"GET /internal/nodes/{UID}", as_json(NODE))
    gateway.on(f"POST /internal/nodes/{UID}/direct", as_json({"ra": 1}), Answer(200, b"\xff\x00", "image/png"))
    assert run(["call", UID, "device.read", "--json"]) == ExitCode.OK
    assert json.loads(json.loads(capsys.readouterr().out)["text"]) == {"ra": 1}
    assert run(["call", UID, "camera.preview", "--json"]) == ExitCode.FAILED
    assert "--output" in capsys.readouterr().err


def test_bad_parameters_of_a_call_are_refused_before_anything_is_asked(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    for params in ("[1]", "{", "x"):
        assert run(["call", UID, "device.read", "--params", params]) == ExitCode.USAGE
    assert gateway.tokens == []
    assert "should be a JSON object" in capsys.readouterr().err


def test_stop_sends_the_safing_command_first_and_shows_the_proof(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /internal/commands", as_json({"telescopeUid": TELESCOPE, "outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", TELESCOPE]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[1].split() == [TELESCOPE, "succeeded", "mount-1", "parked", "read_back"]
    [body] = gateway.bodies
    assert body["command"] == {"command_type": "telescope.safe_shutdown"}
    assert len(gateway.tokens) == 1


def test_a_stop_whose_device_was_read_back_and_did_not_settle_is_not_proved(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    moving = {"devices": [{"device_uid": "mount-1", "state": "moving", "basis": "read_back", "settled_ms": None}]}
    gateway.on("POST /internal/commands", as_json({"telescopeUid": TELESCOPE, "outcome": "succeeded", "proof": moving}))
    assert run(["stop", TELESCOPE]) == ExitCode.FAILED
    assert "not at rest: mount-1" in capsys.readouterr().out


def test_stop_all_reaches_every_telescope_once(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /internal/nodes", page(NODE))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", "--all", TELESCOPE, "--json"]) == ExitCode.OK
    assert sorted(body["telescopeUid"] for body in gateway.bodies) == sorted([TELESCOPE, OTHER])
    assert len(json.loads(capsys.readouterr().out)) == 2


def test_no_stop_waits_for_the_proof_of_another(gateway: FakeGateway, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.on("GET /internal/nodes", page(NODE))
    done = as_json({"outcome": "succeeded", "proof": PROOF})
    gateway.on("POST /internal/commands", replace(done, after=3))  # both stops and the look-up
    assert run(["stop", "--all", TELESCOPE]) == ExitCode.OK
    assert len(gateway.bodies) == 2


def test_a_connected_installation_is_stopped_by_its_uid_without_asking_for_the_hubs_records(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page(NODE))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", "--node", UID]) == ExitCode.OK
    looked = [asked for asked in gateway.asked if asked.startswith("GET")]
    assert looked == ["GET /internal/nodes?page=1&size=100&connected=true"]
    assert len(gateway.bodies) == 2


TWIN: dict[str, Any] = {**NODE, "uid": str(uuid4()), "telescopes": [str(uuid4())]}
"""Another installation of the same name."""


def test_a_name_that_several_have_stops_them_all_and_says_which(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page(NODE, TWIN))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", "--node", "North dome"]) == ExitCode.OK
    assert sorted(body["telescopeUid"] for body in gateway.bodies) == sorted([TELESCOPE, OTHER, *TWIN["telescopes"]])
    [note] = capsys.readouterr().err.splitlines()
    assert note == (
        "2 installations have the name “North dome”, and all of them are stopped: "
        f"{UID} (connected, 2 telescopes), {TWIN['uid']} (connected, 1 telescope). One alone is stopped by its uid."
    )


def test_a_stop_by_name_goes_out_before_the_hubs_records_are_known_and_claims_nothing_for_who_is_away(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    away = {**TWIN, "connected": False}
    gateway.on("GET /internal/nodes", page(NODE), replace(page(NODE, away), after=4))  # both looks and two stops
    done = as_json({"outcome": "succeeded", "proof": PROOF})
    gateway.on(
        "POST /internal/commands", done, done, as_json({"detail": "The node is offline.", "code": "node_offline"}, 503)
    )
    assert run(["stop", "--node", "North dome"]) == ExitCode.FAILED
    written = capsys.readouterr()
    assert [body["telescopeUid"] for body in gateway.bodies][2:] == TWIN["telescopes"]
    assert "The node is offline." in written.out
    assert f"{TWIN['uid']} (not connected, 1 telescope)" in written.err


def test_a_stop_by_name_goes_out_without_the_hubs_records_and_says_what_is_not_known(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page(NODE), as_json({"detail": "The database is away."}, 503))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", "--node", "North dome"]) == ExitCode.FAILED
    written = capsys.readouterr()
    assert written.out.count("parked") == 2
    assert written.err.splitlines() == [
        "skygw: North dome: Whether others that are away have this name is not known: The database is away."
    ]


def test_what_is_no_stop_refuses_a_name_that_several_have_and_lists_their_uids(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page(NODE, TWIN))
    assert run(["call", "North dome", "device.read"]) == ExitCode.FAILED
    assert gateway.bodies == []
    told = capsys.readouterr().err
    assert f"2 installations have the name “North dome”: {UID}, {TWIN['uid']}. Say which by its uid." in told


def test_an_installation_that_is_not_connected_is_looked_up_in_the_hubs_records(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page())
    gateway.on(f"GET /internal/nodes/{UID}", as_json({**NODE, "connected": False}))
    gateway.on("POST /internal/commands", as_json({"detail": "The node is offline.", "code": "node_offline"}, 503))
    assert run(["stop", "--node", UID]) == ExitCode.FAILED
    assert capsys.readouterr().out.count("The node is offline.") == 2


def test_an_installation_without_a_telescope_is_a_problem(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("GET /internal/nodes", page({**NODE, "telescopes": []}))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", TELESCOPE, "--node", UID]) == ExitCode.FAILED
    assert "has no telescope" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"outcome": "succeeded"}, "no proof given"),
        ({"outcome": "succeeded", "proof": {"devices": []}}, "no proof given"),
        ({"outcome": "succeeded", "proof": ["odd"]}, "no proof given"),
        (
            {
                "outcome": "succeeded",
                "proof": {
                    "devices": [*PROOF["devices"], {"device_uid": "roof-1", "state": "open", "basis": "assumed"}]
                },
            },
            "not read back: roof-1",
        ),
        ({"outcome": "in_progress", "proof": PROOF}, "the stop has not succeeded"),
    ],
)
def test_what_is_not_proved_safe_is_no_success_and_says_why(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str], record: dict[str, Any], why: str
) -> None:
    gateway.on("POST /internal/commands", as_json({"telescopeUid": TELESCOPE, **record}))
    assert run(["stop", TELESCOPE]) == ExitCode.FAILED
    assert why in capsys.readouterr().out
    assert run(["stop", TELESCOPE, "--json"]) == ExitCode.FAILED
    [shown] = json.loads(capsys.readouterr().out)
    assert shown["doubt"] == why


def test_stop_of_an_observatory_reaches_its_telescopes_and_no_others(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = {**NODE, "observatoryUid": OTHER, "telescopes": [OTHER]}
    gateway.on("GET /internal/nodes", page({**NODE, "observatoryUid": UID, "telescopes": [TELESCOPE]}, elsewhere))
    gateway.on("POST /internal/commands", as_json({"outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", "--observatory", UID, "--json"]) == ExitCode.OK
    assert [body["telescopeUid"] for body in gateway.bodies] == [TELESCOPE]
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_one_telescope_that_cannot_be_stopped_holds_up_no_other_and_is_told(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(
        "POST /internal/commands",
        as_json({"detail": "The node is offline.", "code": "node_offline", "outcome": "not_sent"}, 503),
        as_json({"telescopeUid": OTHER, "outcome": "succeeded", "proof": PROOF}),
    )
    assert run(["stop", TELESCOPE, OTHER]) == ExitCode.FAILED
    written = capsys.readouterr().out
    assert "The node is offline." in written
    assert "parked" in written


def test_a_stop_whose_connection_broke_is_sent_again_as_the_same_command(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on(
        "POST /internal/commands",
        Answer(200, b"{", promised=50),
        as_json({"telescopeUid": TELESCOPE, "outcome": "succeeded", "proof": PROOF}),
    )
    assert run(["stop", TELESCOPE]) == ExitCode.OK
    first, second = gateway.bodies
    assert first["commandId"] == second["commandId"]


def test_a_look_up_that_fails_does_not_hide_what_was_stopped(
    gateway: FakeGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.on("POST /internal/commands", as_json({"telescopeUid": TELESCOPE, "outcome": "succeeded", "proof": PROOF}))
    assert run(["stop", TELESCOPE, "--node", "999"]) == ExitCode.FAILED
    written = capsys.readouterr()
    assert "parked" in written.out
    assert "999: Nothing at GET /internal/nodes/999." in written.err


@pytest.mark.parametrize(
    "argv", [[], ["not-a-uid"], [TELESCOPE, "--command-type", "mount.point"], [TELESCOPE, "--timeout-s", "0"]]
)
def test_a_stop_that_says_nothing_sensible_is_refused(
    gateway: FakeGateway, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["stop", *argv]) == ExitCode.USAGE
    assert gateway.bodies == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "argv",
    [
        ["nodes", "--url", "http://[::"],
        ["nodes", "--url", "http://127.0.0.1:99999"],
        ["nodes", "--token", "é"],
        ["call", UID, "log.tail", "--timeout-s", "nan"],
        ["simulate", "--duration-s", "nan"],
        ["simulate", "--duration-s", "-1"],
    ],
)
def test_an_ordinary_mistake_is_one_sentence(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argv) == ExitCode.USAGE
    assert len(capsys.readouterr().err.splitlines()) == 1
