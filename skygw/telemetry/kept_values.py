"""Writes retained values through to where they survive a restart: what one loses is 2 s at most, and is said.

What waits to be written is a set of resources, not a queue of values: a database that is away is owed the newest of
each when it is back, and no more.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import NamedTuple, Protocol
from uuid import UUID

import trio

from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import InstallId
from skygw.protocol.streams import StreamName
from skygw.telemetry.presence import installation_resource
from skygw.telemetry.retained import RetainedValues
from skygw.telemetry.sessions import Bound
from skygw.telemetry.value import Value

FLUSH_EVERY_S = 1.0
AT_ONCE = 200
"""Values in one statement: 200 × about 1 KiB, some milliseconds of the event loop."""
CHARACTERS_AT_ONCE = 1024 * 1024
"""And about so much, or one value."""
LAST_FLUSH_S = 2.0
RETRY_S = 1.0
TRY_AGAIN_S = 60.0
"""A value that the database cannot hold is tried again after this: it may be another by then."""
CLOCKS_DIFFER_S = 5.0
"""What was heard more than this later than now was written by another clock, and may be of any age."""
OF_ANY_AGE_S = 10 * 365 * 86_400.0
INSTALLATIONS_AT_ONCE = 20
"""× dozens of values of 1 KiB, and 160 MiB if each had all it may."""

MADE_ANEW = frozenset({StreamName.INSTRUMENT_SNAPSHOT, StreamName.MANUAL_CONTROL_LEASE})
"""What a gateway that begins knows without: an instrument by its devices, a lease by the table of leases."""

log = logging.getLogger("skygw.telemetry")


class KeptValue(NamedTuple):
    """One row. `age_s`: when it was written, or now that it is read, how long ago it had been heard."""

    stream: StreamName
    uid: UUID
    install_id: InstallId
    order: tuple[int, int]
    version: int
    data: str
    observed_at: datetime
    received_at: datetime
    max_silence_s: float | None
    age_s: float


class ValueStore(Protocol):
    """Where values are kept. Everything raises `RoutingUnavailable` when it cannot be asked."""

    async def put(self, values: Collection[KeptValue]) -> None:
        """Keeps each unless a newer one is kept, by version and then by order. All of them or none."""
        ...

    async def installations(self) -> Sequence[InstallId]:
        """Of whom values are kept."""
        ...

    async def of(self, install_ids: Collection[InstallId]) -> Sequence[KeptValue]: ...


class Directory(Protocol):
    """The hub's records. Raises `RoutingUnavailable`."""

    async def bindings(self, install_ids: Collection[InstallId]) -> Mapping[InstallId, Bound]:
        """Of those that there are."""
        ...


async def restore(
    store: ValueStore, directory: Directory, retained: RetainedValues, *, known: Callable[[Bound], None]
) -> int:
    """Takes back what was kept of everything the hub's records still know; returns how much that was.

    `known` is told of each installation before its values are there. Raises `RoutingUnavailable`.
    """
    taken = unknown_ages = 0
    everybody = list(await store.installations())
    for first in range(0, len(everybody), INSTALLATIONS_AT_ONCE):
        bindings = await directory.bindings(everybody[first : first + INSTALLATIONS_AT_ONCE])
        for binding in bindings.values():
            known(binding)
        for kept in await store.of(bindings):
            binding = bindings[kept.install_id]
            resource = binding.resources.get(kept.uid)
            if kept.stream is StreamName.NODE_PRESENCE:
                resource = installation_resource(binding)
            if resource is not None:
                is_of_any_age = kept.age_s < -CLOCKS_DIFFER_S
                unknown_ages += is_of_any_age
                retained.restore(
                    kept.stream,
                    resource,
                    data=kept.data,
                    observed_at=kept.observed_at,
                    received_at=kept.received_at,
                    max_silence_s=kept.max_silence_s,
                    order=kept.order,
                    age_s=OF_ANY_AGE_S if is_of_any_age else max(0.0, kept.age_s),
                )
                taken += 1
    if unknown_ages:
        log.warning(
            "the database's clock went back: how old some values are is not known", extra={"values": unknown_ages}
        )
    return taken


class KeptValues:
    """Told of every value; writes those that are new, `FLUSH_EVERY_S` after each other."""

    def __init__(self, store: ValueStore) -> None:
        self._store = store
        self._unwritten: dict[Value, None] = {}
        self._set_aside: dict[Value, float] = {}
        """What the store could not hold, and when it is tried again."""
        self._is_away = False

    def __len__(self) -> int:
        """How many resources have something to be written: never more than there are."""
        return len(self._unwritten)

    def changed(self, value: Value) -> None:
        # What is stale is written already.
        if value.stale is None and value.stream not in MADE_ANEW:
            self._unwritten[value] = None

    def unchanged(self, value: Value) -> None:
        """The same bytes, and younger."""
        self.changed(value)

    async def run(self) -> None:
        """Until cancelled; then what is unwritten has `LAST_FLUSH_S` to be written."""
        try:
            while True:
                await trio.sleep(FLUSH_EVERY_S)
                try:
                    await self.flush()
                    self._is_away = False
                except RoutingUnavailable as error:
                    if not self._is_away:
                        log.warning("latest values cannot be written", extra={"waiting": len(self), "why": str(error)})
                    self._is_away = True
                    await trio.sleep(error.retry_after_s or RETRY_S)
        finally:
            with trio.move_on_after(LAST_FLUSH_S, shield=True):
                try:
                    await self.flush()
                except RoutingUnavailable as error:
                    log.warning("latest values are lost", extra={"waiting": len(self), "why": str(error)})

    async def flush(self) -> None:
        """Writes everything that is unwritten now. Raises `RoutingUnavailable`; what was not written then, or is not
        known to have been, is unwritten still. So is it when cancelled.
        """
        due, self._unwritten = self._unwritten, {}
        self._leave_set_aside(due)
        try:
            while due:
                batch = _some(due)
                await self._write(batch)
                for value in batch:
                    del due[value]
        finally:
            self._unwritten = due | self._unwritten

    def _leave_set_aside(self, due: dict[Value, None]) -> None:
        now = trio.current_time()
        for value, again_at in self._set_aside.items():
            if value in due and again_at > now:
                del due[value]
                self._unwritten[value] = None

    async def _write(self, values: Sequence[Value]) -> None:
        """One statement; if the store cannot hold one of them, it is found by halves."""
        try:
            await self._store.put(_rows(values))
        except StoreFailed as error:
            if not error.about_the_data:
                raise
            if len(values) == 1:
                self._put_aside(values[0])
                return
            middle = len(values) // 2
            await self._write(values[:middle])
            await self._write(values[middle:])
        else:
            for value in values if self._set_aside else ():
                self._set_aside.pop(value, None)

    def _put_aside(self, value: Value) -> None:
        if value not in self._set_aside:
            log.error(
                "the database cannot hold a latest value: it is set aside",
                extra={"install_id": str(value.install_id), "stream": value.stream.value, "uid": str(value.uid)},
            )
        self._set_aside[value] = trio.current_time() + TRY_AGAIN_S


def _some(due: Iterable[Value]) -> list[Value]:
    batch: list[Value] = []
    size = 0
    for value in islice(due, AT_ONCE):
        size += len(value.data)
        if batch and size > CHARACTERS_AT_ONCE:
            break
        batch.append(value)
    return batch


def _rows(values: Sequence[Value]) -> Collection[KeptValue]:
    """As they are now. A resource that moved between installations may be among them twice: the newer one is meant."""
    now = trio.current_time()
    rows: dict[tuple[StreamName, UUID], KeptValue] = {}
    for value in values:
        kept = rows.get((value.stream, value.uid))
        if kept is None or kept.version < value.version:
            rows[value.stream, value.uid] = KeptValue(
                value.stream,
                value.uid,
                value.install_id,
                value.order,
                value.version,
                value.data,
                value.observed_at,
                value.received_at,
                value.max_silence_s,
                now - value.heard_at,
            )
    return rows.values()
