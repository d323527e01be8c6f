"""Which parts the commands under way move: a second mover of one is refused here, with the name of the first.

What is known here is what this process sent: of a type that is not known, of what another gateway sent and of what is
`unknown` the node decides, which refuses what it cannot do at the same time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from skygw.control.ledger import CommandRecord
from skygw.control.order import CommandOrder
from skygw.errors import DeviceBusy
from skygw.nodes.ports import Binding
from skygw.protocol.command_catalogue import DeviceType, held_by
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.value import utc

BUSY_RETRY_S = 2.0
"""When to try again: nobody knows how long a slew takes, and most take longer."""


@dataclass(frozen=True, slots=True)
class Part:
    """A device, or the one of its type that a telescope's node picks for a command for the telescope."""

    device_type: DeviceType
    telescope_uid: UUID | None
    device_uid: UUID | None

    @property
    def place(self) -> tuple[DeviceType, UUID | None]:
        """Parts that may be the same are in one place."""
        return self.device_type, self.telescope_uid or self.device_uid

    def may_be(self, other: "Part") -> bool:
        """Whether the same device may be meant; both are in one place."""
        return None in (self.device_uid, other.device_uid) or self.device_uid == other.device_uid


class Mover(Protocol):
    """A command from when it is let in."""

    @property
    def holds_devices(self) -> bool:
        """Whether it moves them, as far as is known, or is about to."""
        ...


@dataclass(slots=True, eq=False)
class Hold:
    """What one command moves. `by` is the order until it is sent, and the command from then on."""

    record: CommandRecord
    command_type: str
    parts: tuple[Part, ...]
    by: Mover


class DeviceConflicts:
    """Holds, by place. Those that are over are dropped when the next comes to their place: at most as many places stay
    as there are devices and telescopes. Nothing here waits.
    """

    def __init__(self) -> None:
        self._holds: dict[tuple[DeviceType, UUID | None], list[Hold]] = {}

    def in_the_way(self, order: CommandOrder, binding: Binding) -> DeviceBusy | None:
        """The other command that moves what this order would move, if one does."""
        for part in parts_of(order.command_type, order.telescope_uid, order.device_uid, binding):
            for hold in self._holds.get(part.place, ()):
                meets = any(part.may_be(held) for held in hold.parts if held.place == part.place)
                if meets and hold.by.holds_devices and hold.record.command_id != order.command_id:
                    return _busy(part, hold)
        return None

    def claim(self, record: CommandRecord, command_type: str, binding: Binding, by: Mover) -> Hold:
        """From now on these parts are moved by this command, for as long as it `holds_devices`."""
        parts = parts_of(command_type, record.telescope_uid, record.device_uid, binding)
        hold = Hold(record, command_type, parts, by)
        for place in {part.place for part in parts}:
            self._holds[place] = [*(other for other in self._holds.get(place, ()) if other.by.holds_devices), hold]
        return hold


def parts_of(
    command_type: str, telescope_uid: UUID | None, device_uid: UUID | None, binding: Binding
) -> tuple[Part, ...]:
    """What a known command for this telescope or device moves, as far as the hub's records say; nothing for a device
    that cannot take it. A command for one device of an instrument moves the other devices of that instrument.
    """
    types = held_by(command_type)
    if not types:
        return ()
    if device_uid is None:
        return tuple(Part(device_type, telescope_uid, None) for device_type in types)
    named = binding.resources.get(device_uid)
    if named is None:  # bound since the node's `hello`
        return tuple(Part(device_type, None, device_uid) for device_type in types)
    if named.device_type not in types:
        return ()
    devices = [named] if len(types) == 1 else [named, *_beside(named, binding)]
    return tuple(
        Part(device_type, device.telescope_uid, device.uid)
        for device in devices
        for device_type in types
        if device.device_type == device_type
    )


def _beside(named: Resource, binding: Binding) -> Iterator[Resource]:
    """The other devices of the instruments it is a part of."""
    for instrument in binding.resources.values():
        if instrument.kind is ResourceKind.INSTRUMENT and named.uid in instrument.parts:
            for uid in instrument.parts:
                device = binding.resources.get(uid)
                if device is not None and device.device_type != named.device_type:
                    yield device


def _busy(part: Part, hold: Hold) -> DeviceBusy:
    record = hold.record
    who: dict[str, Any] = {"service": record.service}
    if record.actor is not None:
        who["actor"] = record.actor
    target = {
        "telescopeUid": record.telescope_uid and str(record.telescope_uid),
        "deviceUid": record.device_uid and str(record.device_uid),
    }
    since = record.created_at
    return DeviceBusy(
        f"The {part.device_type.replace('_', ' ')} is moved by {hold.command_type} of {record.service} since "
        f"{since:%H:%M:%S} UTC (command {record.command_id}).",
        retry_after_s=BUSY_RETRY_S,
        details={
            "deviceType": part.device_type,
            "commandId": str(record.command_id),
            "commandType": hold.command_type,
            "since": utc(since),
            "holder": who,
            **{name: uid for name, uid in target.items() if uid is not None},
        },
    )
