"""What a node must remember of its place in the fleet, on its own disk, so that a restored hub finds it again."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from skygw.client.whole_file import write_whole
from skygw.ids import Epoch, InstanceUid
from skygw.protocol.gateway_frames import LinkLossPolicy

FILE_NAME = "node.json"
NO_EPOCH = Epoch(0)
MAX_FENCES = 256
"""As many as `hello` carries."""


class StateUnreadable(Exception):
    """The state file is there and cannot be understood: a person must look, because an identity may be in it."""


@dataclass(frozen=True, slots=True)
class NodeState:
    """One version of the file. `last_fences` are by telescope or device."""

    instance_uid: InstanceUid
    last_epoch: Epoch = NO_EPOCH
    last_fences: dict[UUID, int] = field(default_factory=dict)
    link_loss_policy: LinkLossPolicy | None = None

    def with_epoch(self, epoch: Epoch) -> "NodeState":
        """Epochs only grow."""
        return replace(self, last_epoch=max(self.last_epoch, epoch))

    def with_fence(self, uid: UUID, fence: int) -> "NodeState":
        """Fences only grow. The oldest uid makes room when there are too many."""
        fences = {key: value for key, value in self.last_fences.items() if key != uid}
        fences[uid] = max(fence, self.last_fences.get(uid, 0))
        for oldest in list(fences)[: max(0, len(fences) - MAX_FENCES)]:
            del fences[oldest]
        return replace(self, last_fences=fences)


def load_state(directory: Path, *, instance_uid: InstanceUid | None) -> NodeState:
    """Reads the state, or makes one and writes it. Blocking. Raises `StateUnreadable`, `OSError`."""
    path = directory / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        state = NodeState(instance_uid=instance_uid or InstanceUid(uuid4()))
        save_state(directory, state)
        return state
    try:
        state = _read(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateUnreadable(f"{path} is damaged ({error}); restore it, or remove it to start anew.") from None
    return state if instance_uid is None else replace(state, instance_uid=instance_uid)


def save_state(directory: Path, state: NodeState) -> None:
    """Blocking. Raises `OSError`."""
    text = json.dumps(
        {
            "instance_uid": str(state.instance_uid),
            "last_epoch": state.last_epoch,
            "last_fences": {str(uid): fence for uid, fence in state.last_fences.items()},
            "link_loss_policy": state.link_loss_policy,
        },
        indent=1,
    )
    write_whole(directory / FILE_NAME, text)


def _read(stored: dict[str, Any]) -> NodeState:
    policy = stored["link_loss_policy"]
    return NodeState(
        instance_uid=InstanceUid(UUID(stored["instance_uid"])),
        last_epoch=Epoch(int(stored["last_epoch"])),
        last_fences={UUID(uid): int(fence) for uid, fence in stored["last_fences"].items()},
        link_loss_policy=None if policy is None else LinkLossPolicy(policy),
    )
