"""What a cancel is told of each end that a command can have: never more than is known."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from skygw.control.commands import Cancellation
from skygw.control.ledger import CommandRecord, CommandState
from skygw.control.receipts import receipt_of
from skygw.ids import CommandId, DeviceUid, InstallId, TelescopeUid
from skygw.protocol.json_text import compact

MOUNT, CAMERA = UUID(int=1), UUID(int=2)
S = CommandState


def device(uid: UUID = MOUNT, **changed: Any) -> dict[str, Any]:
    said = {"device_uid": str(uid), "state": "stopped", "basis": "read_back", "samples": 2, "settled_ms": 400}
    return {**said, **changed}


def proof(*devices: Any) -> dict[str, Any]:
    return {"devices": list(devices)}


def said_of(
    state: CommandState,
    canceled: str | None = None,
    shown: Any = None,
    *,
    device_uid: UUID | None = None,
    had_ended: bool = False,
) -> str:
    now = datetime.now(UTC)
    record = CommandRecord(
        command_id=CommandId(uuid4()),
        install_id=InstallId(uuid4()),
        telescope_uid=TelescopeUid(uuid4()) if device_uid is None else None,
        device_uid=None if device_uid is None else DeviceUid(device_uid),
        command="{}",
        origin=None,
        service="tests",
        actor=None,
        created_at=now,
        deadline_at=now,
        state=state,
        canceled=canceled,
        proof=None if shown is None else compact.encode(shown),
    )
    return receipt_of(Cancellation("ended" if had_ended else "asked", record), record).word


@pytest.mark.parametrize(
    ("state", "canceled", "expected"),
    [
        (S.CANCELED, "before_start", "canceled_before_start"),
        (S.CANCELED, None, "unknown"),
        (S.COMPLETED, "too_late", "finished_anyway"),
        (S.COMPLETED, None, "finished_anyway"),
        (S.FAILED, "too_late", "finished_anyway"),
        (S.FAILED, None, "unknown"),
        (S.REJECTED, None, "unknown"),
        (S.RUNNING, "not_cancelable", "not_cancelable"),
        (S.COMPLETED, "not_cancelable", "not_cancelable"),
        (S.UNKNOWN, "not_cancelable", "unknown"),
        (S.RUNNING, "too_late", "unknown"),
        (S.RUNNING, None, "unknown"),
        (S.WRITTEN, None, "unknown"),
        (S.UNKNOWN, None, "unknown"),
        (S.EXPIRED, None, "unknown"),
    ],
)
def test_each_end_has_its_word(state: CommandState, canceled: str | None, expected: str) -> None:
    assert said_of(state, canceled) == expected
    assert said_of(state, canceled, had_ended=True) == "already_ended"


@pytest.mark.parametrize(
    "shown",
    [proof(device()), proof(device(), device(CAMERA, state="idle")), proof({"device_uid": "x", "basis": "read_back"})],
)
def test_interrupted_is_what_every_device_shows(shown: Any) -> None:
    assert said_of(S.CANCELED, "interrupted", shown) == "interrupted"


@pytest.mark.parametrize(
    "shown",
    [
        None,
        {},
        [],
        "stopped",
        {"devices": None},
        {"devices": {"basis": "read_back"}},
        proof(),
        proof(7),
        proof(device(basis="assumed")),
        proof(device(), device(CAMERA, basis="assumed", state="unknown")),
        proof(device(state="moving")),
        proof(device(settled_ms=None)),
        proof(device(state="unknown")),
        proof({"basis": "read_back", "state": "stopped"}),
    ],
)
def test_interrupted_is_not_said_of_what_was_not_read_back_at_rest(shown: Any) -> None:
    assert said_of(S.CANCELED, "interrupted", shown) == "unknown"


def test_a_proof_of_other_devices_proves_nothing_of_the_one_that_was_meant() -> None:
    assert said_of(S.CANCELED, "interrupted", proof(device(CAMERA)), device_uid=MOUNT) == "unknown"
    shown = proof(device(CAMERA), {**device(), "device_uid": str(MOUNT).upper()})
    assert said_of(S.CANCELED, "interrupted", shown, device_uid=MOUNT) == "interrupted"
