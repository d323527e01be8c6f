"""The body of a command: a stop is never refused for what accompanies it, anything else says what is not served."""

import json
from typing import Any
from uuid import uuid4

import pytest

from skygw.errors import Invalid
from skygw.protocol.gateway_frames import CancelMode
from skygw.routers.command_bodies import misfit, read_cancel, read_command, read_resolve
from skygw.routers.schemas import MAX_WAIT_S


def body(command_type: str, **members: Any) -> bytes:
    command = {"command_type": command_type}
    return json.dumps({"telescopeUid": str(uuid4()), "commandId": str(uuid4()), "command": command, **members}).encode()


OPTIONS: list[dict[str, Any]] = [
    {"leaseUid": str(uuid4())},
    {"leaseUid": 7},
    {"validateOnly": True},
    {"validateOnly": "maybe"},
    {"onCallerGone": "cancel"},
    {"onCallerGone": "explode"},
    {"timeoutS": 0},
    {"timeoutS": -1},
    {"timeoutS": "soon"},
    {"timeoutS": 10**9},
    {"waitS": -3},
    {"waitS": "long"},
    {"waitS": None},
    {"waitS": 10**400},
    {"waitS": 1, "wait_s": 2},
    {"graphRevision": -1},
    {"fence": 3},
    {"origin": "no object"},
    {"actor": {"uid": ""}},
    {"unheardOf": [1]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("command_type", ["mount.stop", "camera.exposure.abort", "telescope.safe_shutdown"])
def test_a_stop_is_taken_whatever_accompanies_it(command_type: str, options: dict[str, Any]) -> None:
    taken = read_command(body(command_type, **options))
    assert taken.command.value == {"command_type": command_type}
    assert 0 <= taken.wait_s <= MAX_WAIT_S
    assert taken.timeout_s is None or taken.timeout_s > 0
    assert (taken.lease_uid, taken.graph_revision) == (None, None)
    assert not taken.validate_only


def test_the_wait_of_a_stop_is_the_nearest_that_is_possible() -> None:
    assert [read_command(body("mount.stop", waitS=wait)).wait_s for wait in (-1, 5, 10_000)] == [0, 5, MAX_WAIT_S]


@pytest.mark.parametrize(
    "options",
    [
        {"leaseUid": "mine"},
        {"validateOnly": "yes"},
        {"onCallerGone": "cancel"},
        {"onCallerGone": "explode"},
        {"timeoutS": 0},
        {"waitS": -1},
        {"unheardOf": 1},
    ],
    ids=str,
)
def test_anything_else_is_refused_for_an_option_that_would_not_be_kept(options: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as caught:
        read_command(body("mount.point", **options))
    assert [field["loc"] for field in caught.value.fields] == [["body", *options]]


def test_options_that_ask_for_nothing_special_are_taken() -> None:
    taken = read_command(body("mount.point", validateOnly=False, onCallerGone="continue", leaseUid=None))
    assert (taken.validate_only, taken.on_caller_gone) == (False, "continue")
    taken = read_command(body("mount.point", validateOnly=True, onCallerGone="cancel", waitS=1))
    assert (taken.validate_only, taken.on_caller_gone) == (True, "cancel")


def test_what_cannot_be_right_in_a_known_command_is_named_where_it_stands() -> None:
    wrong = {"command_type": "mount.offset_relative", "delta_arcsec": "3", "note": "secret"}
    refusal = misfit(read_command(body("x", command=wrong)))
    assert refusal is not None
    assert [field["loc"] for field in refusal.fields] == [
        ["body", "command", "delta_arcsec"],
        ["body", "command", "axis"],
    ]
    assert "secret" not in str(refusal.fields) + refusal.message


@pytest.mark.parametrize("command_type", ["mount.stop", "camera.exposure.abort", "dome.spin", "mount.park"])
def test_stops_unknown_types_and_what_a_known_type_does_not_list_are_carried(command_type: str) -> None:
    command = {"command_type": command_type, "target": 7, "duration_s": "long"}
    taken = read_command(body("x", command=command))
    assert misfit(taken) is None
    assert taken.command.value == command


@pytest.mark.parametrize(
    "said",
    [
        {"outcome": "failed"},
        {"outcome": "failed", "reason": ""},
        {"outcome": "failed", "reason": "  "},
        {"outcome": "not_sent", "reason": "x"},
        {"outcome": "unknown", "reason": "x"},
        {"outcome": "failed", "reason": "x", "state": "completed"},
        {"outcome": "failed", "reason": "x" * 501},
        {"reason": "x"},
    ],
    ids=str,
)
def test_a_word_on_what_became_of_a_command_is_whole_or_refused(said: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        read_resolve(json.dumps(said).encode())
    assert read_resolve(b'{"outcome":"succeeded","reason":"seen on site"}').outcome == "succeeded"


@pytest.mark.parametrize(
    "target", [{"telescopeUid": None}, {"telescopeUid": "x"}, {"deviceUid": str(uuid4())}], ids=str
)
def test_a_stop_without_one_target_is_refused(target: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        read_command(body("mount.stop", **target))


@pytest.mark.parametrize(
    "said", [{"mode": "hard"}, {"mode": []}, {"graceS": -1}, {"graceS": "x"}, {"waitS": -1}, {"why": "fog"}], ids=str
)
def test_a_cancel_is_taken_whatever_accompanies_it(said: dict[str, Any]) -> None:
    taken = read_cancel(json.dumps(said).encode())
    assert (taken.mode, taken.grace_s, taken.wait_s) == (CancelMode.GRACEFUL, None, 0)
