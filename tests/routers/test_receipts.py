"""What a cancel is said to have come to goes no further than its proof."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from skygw.control.ledger import CommandRecord, CommandState
from skygw.ids import CommandId, DeviceUid, InstallId
from skygw.routers.views import receipt

AT_REST = {"device_uid": "mount", "state": "stopped", "basis": "read_back", "samples": 7, "settled_ms": 1200}


def interrupted(proof: object) -> CommandRecord:
    """What a node calls interrupted, with this proof."""
    now = datetime.now(UTC)
    return CommandRecord(
        command_id=CommandId(uuid4()),
        install_id=InstallId(uuid4()),
        telescope_uid=None,
        device_uid=DeviceUid(uuid4()),
        command='{"command_type":"mount.point"}',
        origin=None,
        service="tests",
        actor=None,
        created_at=now,
        deadline_at=now,
        state=CommandState.CANCELED,
        canceled="interrupted",
        proof=None if proof is None else json.dumps(proof),
    )


def test_what_was_read_back_at_rest_is_interrupted() -> None:
    assert receipt(interrupted({"devices": [AT_REST, AT_REST]}), had_ended=False).receipt == "interrupted"


@pytest.mark.parametrize(
    "proof",
    [
        None,
        {},
        {"devices": []},
        {"devices": "mount"},
        {"devices": [{**AT_REST, "basis": "assumed"}]},
        {"devices": [{**AT_REST, "settled_ms": None}]},
        {"devices": [{name: said for name, said in AT_REST.items() if name != "settled_ms"}]},
        {"devices": [AT_REST, {**AT_REST, "settled_ms": None, "state": "moving"}]},
    ],
    ids=json.dumps,
)
def test_what_was_not_is_unknown_whatever_the_node_calls_it(proof: Any) -> None:
    assert receipt(interrupted(proof), had_ended=False).receipt == "unknown"
