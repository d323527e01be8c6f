"""A node is told what is wrong with its snapshots: each thing once in a while, and how much was left unsaid."""

from typing import Any, cast
from uuid import uuid4

from trio.testing import MockClock

from skygw.nodes.refusals import AT_MOST, MAX_UID, SAID_AGAIN_S, SnapshotRefusals
from skygw.protocol.frame import Frame
from skygw.protocol.node_frames import Error, ErrorCode
from skygw.resources import Unwanted

NOT_YOURS = Unwanted("not_found", "This is nothing of yours.")


class Told:
    """What was said and counted."""

    def __init__(self) -> None:
        self.said: list[Error] = []
        self.counted: list[str] = []
        self.refusals = SnapshotRefusals(say=self._say, count=self.counted.append)

    def _say(self, frame: Frame) -> None:
        assert isinstance(frame, Error)
        self.said.append(frame)

    def refuse(self, uid: object, unwanted: Unwanted = NOT_YOURS) -> None:
        self.refusals.tell(unwanted, stream="device_snapshot", uid=uid)

    @property
    def details(self) -> list[dict[str, Any]]:
        return [cast("dict[str, Any]", error.details.value) for error in self.said if error.details is not None]


async def test_the_same_is_said_once_in_a_while_with_how_much_was_not_said(mock_clock: MockClock) -> None:
    told = Told()
    for _ in range(30):
        told.refuse("mount")
    mock_clock.jump(SAID_AGAIN_S)
    told.refuse("mount")
    told.refuse("mount")
    assert [each["unsaid"] for each in told.details] == [0, 29]
    assert told.counted == ["not_found"] * 32


async def test_another_uid_and_another_reason_are_said_by_themselves(mock_clock: MockClock) -> None:
    told = Told()
    for _ in range(3):
        told.refuse("mount")
        told.refuse("dome")
        told.refuse("mount", Unwanted("out_of_order", "It went back."))
    assert [(each["uid"], each["reason"]) for each in told.details] == [
        ("mount", "not_found"),
        ("dome", "not_found"),
        ("mount", "out_of_order"),
    ]
    assert [error.code for error in told.said] == [ErrorCode.NOT_FOUND, ErrorCode.NOT_FOUND, ErrorCode.INVALID]


async def test_uids_without_end_are_not_remembered_without_end_and_not_answered_either(mock_clock: MockClock) -> None:
    told = Told()
    for _ in range(10 * AT_MOST):
        told.refuse(str(uuid4()))
    assert len(told.said) == AT_MOST
    mock_clock.jump(SAID_AGAIN_S)
    told.refuse("one more")
    assert told.details[-1] == {
        "reason": "not_found",
        "stream": "device_snapshot",
        "uid": "one more",
        "unsaid": 9 * AT_MOST,
    }


async def test_whatever_stands_for_a_uid_is_said_back_short_or_not_at_all(mock_clock: MockClock) -> None:
    told = Told()
    for uid in (7, None, ["mount"], "x" * 60_000):
        told.refuse(uid, Unwanted("invalid", "A snapshot needs a uid."))
    assert [each["uid"] for each in told.details] == [None, "x" * MAX_UID]
