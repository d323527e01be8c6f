"""One sentence and one action for whatever ails a node; the most telling fact wins."""

from typing import Any

import pytest

from skygw.cli.why import AFTER_CLOSE, explain
from skygw.protocol.close_codes import CloseCode

EARLY, LATE = "2026-03-01T10:00:00+00:00", "2026-03-01T11:00:00+00:00"


def away(**members: Any) -> dict[str, Any]:
    return {"uid": "u-1", "name": "North dome", "connected": False, "lastClose": None, "lastRefusal": None, **members}


def here(**members: Any) -> dict[str, Any]:
    return {"uid": "u-1", "name": "North dome", "connected": True, **members}


def close(code: int | None, at: str = EARLY) -> dict[str, Any]:
    return {"at": at, "code": code, "reason": "said so", "byNode": False}


def refusal(code: int, at: str = EARLY) -> dict[str, Any]:
    return {"at": at, "code": code, "reason": "said so", "address": "203.0.113.9"}


def test_a_node_that_is_well_needs_nothing() -> None:
    finding = explain(here(queueBytes={"safing": 0, "data": 10}, unackedReports=0, roundTripS=0.2, streams=[]))
    assert finding.healthy
    assert finding.sentence.startswith("North dome is connected")


def test_a_node_never_seen_is_looked_for_on_site() -> None:
    finding = explain(away())
    assert "has not connected since this gateway started" in finding.sentence
    assert not finding.healthy


@pytest.mark.parametrize("code", list(CloseCode))
def test_every_close_code_has_its_sentence_and_action(code: CloseCode) -> None:
    finding = explain(away(lastClose=close(code)))
    said, action = AFTER_CLOSE[code]
    assert finding.sentence == f"North dome {said} (code {int(code)}, said so, {EARLY})."
    assert finding.action == action


@pytest.mark.parametrize("code", [None, 1006, 4999])
def test_a_close_without_a_known_code_is_a_lost_connection(code: int | None) -> None:
    assert "lost its connection without a goodbye" in explain(away(lastClose=close(code))).sentence


def test_a_refusal_after_the_last_close_is_what_keeps_the_node_away() -> None:
    finding = explain(away(lastClose=close(4002, EARLY), lastRefusal=refusal(401, LATE)))
    assert "token does not hold" in finding.sentence
    assert "203.0.113.9" in finding.sentence


def test_a_close_after_the_last_refusal_is_what_keeps_the_node_away() -> None:
    finding = explain(away(lastClose=close(4002, LATE), lastRefusal=refusal(401, EARLY)))
    assert "fell silent" in finding.sentence


@pytest.mark.parametrize("code", [401, 403, 404, 426, 429, 503, 4505, 4502])
def test_a_refusal_by_either_door_has_its_own_sentence(code: int) -> None:
    assert " is refused (" not in explain(away(lastRefusal=refusal(code))).sentence


def test_a_second_machine_is_not_just_told_to_try_again() -> None:
    assert "transfer" in explain(away(lastRefusal=refusal(4505))).action


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"tokenInGrace": True}, "expired token"),
        ({"queueBytes": {"data": 2_000_000}}, "2000000 bytes wait"),
        ({"unackedReports": 600}, "600 of its reports"),
        ({"roundTripS": 7.25}, "only after 7.2 s"),
        (
            {"streams": [{"stream": "device_snapshot", "uid": "cam", "ageS": 61.0, "maxSilenceS": 60.0}] * 2},
            "device_snapshot of cam is silent for longer than it promised and 1 more",
        ),
    ],
)
def test_what_ails_a_connected_node_is_named(members: dict[str, Any], words: str) -> None:
    finding = explain(here(**members))
    assert words in finding.sentence
    assert not finding.healthy


def test_a_stream_that_promised_nothing_is_never_stale() -> None:
    assert explain(here(streams=[{"stream": "s", "uid": "u", "ageS": 9e9, "maxSilenceS": None}])).healthy


def test_a_node_without_a_name_goes_by_its_uid() -> None:
    assert explain(away(name=None)).sentence.startswith("u-1 ")
