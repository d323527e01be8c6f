"""The latest value of every resource, newest by (session epoch, `live_seq`), never by anybody's clock."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol
from uuid import UUID

import trio

from skygw.ids import Epoch, InstallId
from skygw.protocol.json_text import too_complex
from skygw.protocol.limits import MAX_JSON_VALUES, MAX_SNAPSHOT_BYTES
from skygw.protocol.node_frames import PublishSnapshot
from skygw.protocol.streams import RETAINED_STREAMS, StaleReason, StreamName
from skygw.resources import Resource, ResourceKind, Unwanted
from skygw.telemetry.audience import Index, Want
from skygw.telemetry.positions import Versions
from skygw.telemetry.value import Value

MAX_RESOURCES_PER_INSTALLATION = 1_000
"""Of all streams together; a real node has a few dozen of 1 KiB."""

MAX_BYTES_PER_INSTALLATION = 8 * 1024 * 1024

MAX_INSTALLATIONS = 10_000
"""× a few dozen KiB. Beyond it the one that has been silent longest is forgotten, as one that left for good is."""

VALUES_BESIDE = 16
"""More than the members of a frame beside its `data`."""

NEVER_TOO_LARGE = 8_000
"""Characters that are told to a node in one frame, whatever they are."""

PUBLISHED_BY_NODES: dict[StreamName, frozenset[ResourceKind]] = {
    StreamName.DEVICE_SNAPSHOT: frozenset({ResourceKind.DEVICE}),
    StreamName.TELESCOPE_SNAPSHOT: frozenset({ResourceKind.TELESCOPE}),
    StreamName.CONSTRAINT_SNAPSHOT: frozenset({ResourceKind.CONSTRAINT}),
    StreamName.CONSTRAINT_STATUS_SNAPSHOT: frozenset({ResourceKind.CONSTRAINT}),
    StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT: frozenset(
        {ResourceKind.TELESCOPE, ResourceKind.DEVICE, ResourceKind.CONSTRAINT, ResourceKind.OBSERVATORY}
    ),
}
"""What a node may say the state of, and what that may be about. The other retained streams are the hub's own."""


class Publisher(Protocol):
    """Who publishes, and what that may be about."""

    @property
    def install_id(self) -> InstallId: ...
    @property
    def resources(self) -> Mapping[UUID, Resource]: ...


class _Held:
    """What is held of one installation, the size of its texts, and when it was last heard, in snapshots of all."""

    __slots__ = ("by_text", "heard", "size", "values")

    def __init__(self) -> None:
        self.values: dict[tuple[StreamName, UUID], Value] = {}
        self.by_text: dict[tuple[str, str], Value] = {}
        """By stream and uid as the node spells it, so that no UUID is parsed again."""
        self.size = 0
        self.heard = 0


class RetainedValues:
    """In memory. One installation's values cannot crowd out another's. `changed` and `unchanged` are told of each value
    taken and never wait.
    """

    def __init__(
        self,
        versions: Versions,
        *,
        changed: Callable[[Value], None],
        unchanged: Callable[[Value], None],
        now: Callable[[], float] = trio.current_time,
    ) -> None:
        self._versions = versions
        self._changed = changed
        self._unchanged = unchanged
        self._now = now
        self._held: dict[InstallId, _Held] = {}
        self._heard = 0
        self._owners: dict[tuple[StreamName, UUID], InstallId] = {}
        self._indexes: dict[StreamName, Index[Value]] = {stream: Index() for stream in RETAINED_STREAMS}

    # What comes in.

    def offer(self, publisher: Publisher, epoch: Epoch, frame: PublishSnapshot) -> Unwanted | None:
        """Keeps what a node publishes unless a newer session has said it, which is no mistake. Says why it does not."""
        if len(frame.data.text) > NEVER_TOO_LARGE and _is_too_large(frame.data.text):
            return Unwanted(
                "invalid",
                f"`data` may have {MAX_SNAPSHOT_BYTES} bytes and somewhat less than {MAX_JSON_VALUES} values: other "
                "nodes are told of it in a frame of the largest size.",
            )
        said = frame.data.value.get("uid")
        install_id = publisher.install_id
        held = self._held.get(install_id)
        value = None
        if held is not None and type(said) is str:
            value = held.by_text.get((frame.stream, said))
        resource: Resource | None
        if value is not None:
            stream = value.stream
            resource = publisher.resources.get(value.resource.uid)
            if resource is None:
                return _not_yours(stream.value, said)
        else:
            stream = StreamName(frame.stream.value)
            resource, unwanted = _published(publisher, stream, said)
            if resource is None:
                return unwanted
        return self._put(
            stream,
            resource,
            data=frame.data.text,
            observed_at=frame.observed_at,
            max_silence_s=frame.max_silence_s,
            order=(epoch, frame.live_seq),
            value=value,
            spelled=said if value is None else None,
        )

    def say(
        self,
        stream: StreamName,
        resource: Resource,
        data: str,
        *,
        order: tuple[int, int],
        made_of: Sequence[Value] = (),
    ) -> None:
        """Keeps a value of the hub's own: a lease, a presence, an instrument. An older one is passed over.

        One that is computed is as old as the oldest value it is made of, as bound to be said again as the one that is
        bound most, and stale for the reason of the first that is.
        """
        limits = [part.max_silence_s for part in made_of if part.max_silence_s is not None]
        self._put(
            stream,
            resource,
            data=data,
            observed_at=min((part.observed_at for part in made_of), default=None) or datetime.now(UTC),
            received_at=min((part.received_at for part in made_of), default=None),
            heard_at=min((part.heard_at for part in made_of), default=None),
            max_silence_s=min(limits, default=None),
            order=order,
            stale=next((part.stale for part in made_of if part.stale is not None), None),
        )

    def restore(
        self,
        stream: StreamName,
        resource: Resource,
        *,
        data: str,
        observed_at: datetime,
        received_at: datetime,
        max_silence_s: float | None,
        order: tuple[int, int],
        age_s: float,
    ) -> None:
        """Takes back a value of before this gateway began, `age_s` old by the database's clock: it is stale until its
        node says it again. That it is stale is news of this era, also for who resumes. What was said since is newer.
        """
        self._put(
            stream,
            resource,
            data=data,
            observed_at=observed_at,
            received_at=received_at,
            heard_at=self._now() - age_s,
            max_silence_s=max_silence_s,
            order=order,
            stale=StaleReason.GATEWAY_RESTARTED,
        )

    def _put(
        self,
        stream: StreamName,
        resource: Resource,
        *,
        data: str,
        observed_at: datetime,
        max_silence_s: float | None,
        order: tuple[int, int],
        value: Value | None = None,
        spelled: str | None = None,
        received_at: datetime | None = None,
        heard_at: float | None = None,
        stale: StaleReason | None = None,
    ) -> Unwanted | None:
        held = self._held.get(resource.install_id) or self._new(resource.install_id)
        is_the_nodes = stream in PUBLISHED_BY_NODES  # the hub's own take nothing of the node's share
        self._heard += 1
        held.heard = self._heard
        if value is None:
            value = held.values.get((stream, resource.uid))
        if value is None:
            if len(held.values) >= MAX_RESOURCES_PER_INSTALLATION and is_the_nodes:
                return Unwanted(
                    "quota_exceeded",
                    f"This installation has {len(held.values)} snapshots here, and {MAX_RESOURCES_PER_INSTALLATION} is "
                    "the limit.",
                )
            value = Value(stream, resource)
        elif value.order >= order:
            return _went_back(value, order, data)
        size = held.size + len(data) - len(value.data)
        if size > MAX_BYTES_PER_INSTALLATION and is_the_nodes:
            return Unwanted(
                "quota_exceeded",
                f"The snapshots of this installation would take {size} bytes, and {MAX_BYTES_PER_INSTALLATION} is the "
                "limit.",
            )
        if value.version == 0:
            self._adopt(held, value)
        elif value.resource is not resource:
            index = self._indexes[stream]
            index.remove(value)
            value.resource = resource
            index.add(value)
            value.generation = -1
        if spelled is not None and len(held.by_text) < 2 * MAX_RESOURCES_PER_INSTALLATION:
            held.by_text[stream, spelled] = value
        if is_the_nodes:
            held.size = size
        value.order = order
        value.observed_at = observed_at
        value.received_at = received_at or datetime.now(UTC)
        value.heard_at = self._now() if heard_at is None else heard_at
        value.max_silence_s = max_silence_s
        if value.tails:
            value.tails.clear()
        is_same = data == value.data
        if is_same and value.stale is stale and value.version:
            self._unchanged(value)
            return None
        value.data = data
        value.stale = stale
        value.version = self._versions.next()
        if stale is None or not is_same:  # else subscribers have this data, and are told that it is stale
            value.data_version = value.version
        self._changed(value)
        return None

    def _adopt(self, held: _Held, value: Value) -> None:
        """A resource that moved to another installation is that one's from now on."""
        key = (value.stream, value.uid)
        before = self._owners.get(key)
        if before is not None and before != value.install_id:
            self._forget(before, key)
        self._owners[key] = value.install_id
        held.values[key] = value
        self._indexes[value.stream].add(value)

    def _new(self, install_id: InstallId) -> _Held:
        if len(self._held) >= MAX_INSTALLATIONS:
            silent = min(self._held, key=lambda one: self._held[one].heard)
            for key in list(self._held[silent].values):
                self._forget(silent, key)
                del self._owners[key]
            del self._held[silent]
        held = self._held[install_id] = _Held()
        return held

    def _forget(self, install_id: InstallId, key: tuple[StreamName, UUID]) -> None:
        """Whoever has it hears that it is not the present, the last time that anything is heard of it."""
        held = self._held[install_id]
        value = held.values.pop(key)
        value.is_gone = True
        value.stale = None
        self.mark_stale(value, StaleReason.SILENT)
        if value.stream in PUBLISHED_BY_NODES:
            held.size -= len(value.data)
        held.by_text = {said: one for said, one in held.by_text.items() if one is not value}
        self._indexes[value.stream].remove(value)

    # What is known of it.

    def mark_stale(self, value: Value, reason: StaleReason) -> None:
        """It is no longer to be taken for the present, until its node says it again. The first reason stays."""
        if value.stale is None:
            value.stale = reason
            value.version = self._versions.next()
            value.tails.clear()
            self._changed(value)

    def find(self, stream: StreamName, uid: UUID) -> Value | None:
        owner = self._owners.get((stream, uid))
        return None if owner is None else self._held[owner].values.get((stream, uid))

    def of(self, install_id: InstallId) -> Iterator[Value]:
        """Everything held of one installation."""
        held = self._held.get(install_id)
        return iter(() if held is None else list(held.values.values()))

    def stale(self) -> Counter[str]:
        """How many values of each stream are not the present. Looks at all of them."""
        return Counter(
            value.stream.value
            for held in self._held.values()
            for value in held.values.values()
            if value.stale is not None
        )

    def matching(self, stream: StreamName, want: Want) -> list[Value]:
        """What fits, in the order it changed."""
        return sorted(self._indexes[stream].matching(want), key=lambda value: value.version)


def _published(publisher: Publisher, stream: StreamName, said: object) -> tuple[Resource | None, Unwanted]:
    """What a snapshot is about, or why it is not taken."""
    kinds = PUBLISHED_BY_NODES.get(stream)
    if kinds is None:
        return None, Unwanted("forbidden", f"The stream {stream.value} is the hub's own; no node publishes it.")
    try:
        uid = UUID(said) if isinstance(said, str) and len(said) == 36 else None
    except ValueError:
        uid = None
    if uid is None:
        return None, Unwanted("invalid", "A snapshot's `data` needs the `uid` of its resource, a UUID.")
    resource = publisher.resources.get(uid)
    if resource is None or resource.kind not in kinds:
        return None, _not_yours(stream.value, str(uid))
    return resource, Unwanted("", "")


def _is_too_large(data: str) -> bool:
    """Whether it came in a frame, and the one that tells a node of it would be too large to be read."""
    return len(data.encode()) > MAX_SNAPSHOT_BYTES or too_complex(f"[{'0,' * VALUES_BESIDE}{data}]") is not None


def _went_back(value: Value, order: tuple[int, int], data: str) -> Unwanted | None:
    """An older session, or the same again, is no mistake; but who counts backwards, or does not count, would never be
    heard again.
    """
    epoch, live_seq = value.order
    if order[0] < epoch or (order[1] == live_seq and data == value.data):
        return None
    if order[1] == live_seq:
        return Unwanted("out_of_order", f"The live_seq {live_seq} came twice in this session, with other data.")
    return Unwanted(
        "out_of_order", f"The live_seq {order[1]} came behind {live_seq} of the same resource in the same session."
    )


def _not_yours(stream: str, uid: object) -> Unwanted:
    return Unwanted("not_found", f"{uid} is nothing this installation can publish in {stream}, by the hub's records.")
