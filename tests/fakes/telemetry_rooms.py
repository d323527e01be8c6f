"""Resources, snapshots and events for tests of telemetry, and an outlet whose messages are read as objects."""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import trio

from skygw.ids import Epoch, InstallId, TelescopeUid
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream
from skygw.protocol.streams import StreamName, SubscribeStream
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.dialects import WITH_EXTENSIONS
from skygw.telemetry.outlet import SubscriberOutlet
from tests.fakes.moments import NOW


@dataclass(frozen=True)
class Site:
    """An installation that may publish of a telescope and some devices."""

    install_id: InstallId = field(default_factory=lambda: InstallId(uuid4()))
    observatory_uid: UUID = field(default_factory=uuid4)
    telescope_uid: UUID | None = field(default_factory=uuid4)
    resources: dict[UUID, Resource] = field(default_factory=dict)
    name: str = "North dome"

    @property
    def telescopes(self) -> frozenset[TelescopeUid]:
        return frozenset() if self.telescope_uid is None else frozenset({TelescopeUid(self.telescope_uid)})

    def device(self, device_type: str = "mount") -> UUID:
        """One more device."""
        return self._resource(ResourceKind.DEVICE, device_type=device_type)

    def telescope(self) -> UUID:
        return self._resource(ResourceKind.TELESCOPE, uid=self.telescope_uid)

    def instrument(self, *parts: UUID) -> UUID:
        """One made of these devices."""
        return self._resource(ResourceKind.INSTRUMENT, parts=parts)

    def _resource(
        self,
        kind: ResourceKind,
        *,
        uid: UUID | None = None,
        device_type: str | None = None,
        parts: tuple[UUID, ...] = (),
    ) -> UUID:
        found = Resource(
            uid=uid or uuid4(),
            kind=kind,
            install_id=self.install_id,
            observatory_uid=self.observatory_uid,
            telescope_uid=self.telescope_uid,
            device_type=device_type,
            parts=parts,
        )
        self.resources[found.uid] = found
        return found.uid


@dataclass(frozen=True)
class Greeting:
    """What a node says of itself."""

    software_version: str = "1.2.3"


@dataclass(eq=False)
class Session:
    """A socket of a site, as telemetry sees it."""

    binding: Site
    epoch: Epoch
    hello: Greeting = Greeting()
    address: str = "192.0.2.7"
    last_received_at: float = field(default_factory=trio.current_time)


@dataclass(frozen=True)
class Goodbye:
    """Why a session ended."""

    code: int | None = 1006
    reason: str = "connection lost"
    by_node: bool = True
    at: datetime = NOW


def snapshot(
    uid: object,
    live_seq: int,
    *,
    stream: SnapshotStream = SnapshotStream.DEVICE_SNAPSHOT,
    max_silence_s: float | None = None,
    **data: object,
) -> PublishSnapshot:
    """A snapshot of `uid` that says `data`."""
    return PublishSnapshot(
        stream=stream,
        data=Opaque.of({"uid": str(uid) if isinstance(uid, UUID) else uid, **data}),
        observed_at=NOW,
        max_silence_s=max_silence_s,
        live_seq=live_seq,
    )


def asks(stream: StreamName, name: str = "mine", *, options: object = None, **wanted: object) -> SubscribeStream:
    """A subscription with this filter."""
    plain = {
        key: [str(one) for one in value] if isinstance(value, list) else str(value) for key, value in wanted.items()
    }
    return SubscribeStream(
        subscription_id=name,
        stream=stream,
        filter=Opaque.of(plain) if plain else None,
        options=None if options is None else Opaque.of(options),
    )


class Reader:
    """An outlet and what has been read of it."""

    def __init__(self) -> None:
        self.outlet = SubscriberOutlet(WITH_EXTENSIONS, owner="a service")

    async def read(self, count: int) -> list[dict[str, Any]]:
        """So many messages, however they are batched; more is a mistake of the test's."""
        found: list[dict[str, Any]] = []
        with trio.fail_after(30):
            while len(found) < count:
                found += [json.loads(text) for text in await self.outlet.next(at_most=1)]
        return found

    async def until_live(self) -> list[dict[str, Any]]:
        """Everything up to and with `event_live`."""
        found: list[dict[str, Any]] = []
        with trio.fail_after(30):
            while not found or found[-1]["kind"] != "event_live":
                found += [json.loads(text) for text in await self.outlet.next(at_most=1)]
        return found
