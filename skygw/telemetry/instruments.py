"""The stream `instrument_snapshot`, which nobody publishes: what the devices of an instrument said, in one value.

A snapshot of a device is said far more often than one of an instrument is read. So a change of a device only marks the
instruments it is part of. Those somebody listens to are put together in the next turn of the scheduler, once for all
that came together (a node says its devices in one array); the others when somebody subscribes.
"""

from typing import Any
from uuid import UUID

import trio

from skygw.ids import InstallId
from skygw.protocol.streams import StaleReason, StreamName
from skygw.resources import Resource, ResourceKind
from skygw.telemetry.audience import Audience, Want
from skygw.telemetry.retained import RetainedValues
from skygw.telemetry.sessions import Bound
from skygw.telemetry.value import Value

AT_ONCE = 64
"""Instruments put together before others have their turn: about a millisecond."""


class _Instrument:
    __slots__ = ("generation", "is_heard", "is_outdated", "resource")

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        self.is_outdated = False
        self.is_heard = False
        self.generation = -1


_OfInstallations = dict[InstallId, dict[UUID, _Instrument]]


class Instruments:
    """Is told of every value; nothing here waits but `run`."""

    def __init__(self, retained: RetainedValues, audience: Audience[Any]) -> None:
        self._retained = retained
        self._audience = audience
        self._known: _OfInstallations = {}
        self._with_part: dict[UUID, list[_Instrument]] = {}
        self._due: list[_Instrument] = []
        self._wake = trio.Event()
        self._count = 0

    # Which instruments there are.

    def know(self, binding: Bound) -> None:
        """These are the installation's instruments from now on, as the hub's records say."""
        before = self._known.pop(binding.install_id, {})
        for instrument in before.values():
            instrument.is_outdated = False
            for part in instrument.resource.parts:
                self._with_part[part].remove(instrument)
                if not self._with_part[part]:
                    del self._with_part[part]
        now = {
            resource.uid: _Instrument(resource)
            for resource in binding.resources.values()
            if resource.kind is ResourceKind.INSTRUMENT and resource.parts
        }
        for uid in before.keys() - now.keys():
            gone = self._retained.find(StreamName.INSTRUMENT_SNAPSHOT, uid)
            if gone is not None:
                self._retained.mark_stale(gone, StaleReason.SILENT)
        if now:
            self._known[binding.install_id] = now
        for instrument in now.values():
            for part in instrument.resource.parts:
                self._with_part.setdefault(part, []).append(instrument)
            self._outdate(instrument)

    # What their devices say.

    def changed(self, value: Value) -> None:
        if value.stream is StreamName.DEVICE_SNAPSHOT:
            for instrument in self._with_part.get(value.resource.uid, ()):
                if not instrument.is_outdated:
                    self._outdate(instrument)

    def unchanged(self, value: Value) -> None:
        """The same bytes are younger now, and so is the instrument."""
        self.changed(value)

    def _outdate(self, instrument: _Instrument) -> None:
        instrument.is_outdated = True
        if instrument.generation != self._audience.generation:
            instrument.generation = self._audience.generation
            instrument.is_heard = bool(self._audience.of(instrument.resource))
        if instrument.is_heard:
            self._due.append(instrument)
            self._wake.set()

    # Putting them together.

    def catch_up(self, want: Want) -> None:
        """Somebody asks for those that fit: they are put together now. About 10 µs for each that has changed since."""
        for instruments in self._known.values():
            for instrument in instruments.values():
                if instrument.is_outdated and want.fits(instrument.resource):
                    self._put_together(instrument)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            due, self._due = self._due, []
            for done, instrument in enumerate(due, start=1):
                if instrument.is_outdated:
                    self._put_together(instrument)
                if done % AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()

    def _put_together(self, instrument: _Instrument) -> None:
        instrument.is_outdated = False
        resource = instrument.resource
        found = [self._retained.find(StreamName.DEVICE_SNAPSHOT, part) for part in resource.parts]
        parts = [value for value in found if value is not None]
        if not parts:
            return
        devices = ",".join(f'"{value.uid}":{value.data}' for value in parts)
        self._count += 1
        self._retained.say(
            StreamName.INSTRUMENT_SNAPSHOT,
            resource,
            f'{{"uid":"{resource.uid}","devices":{{{devices}}}}}',
            order=(0, self._count),
            made_of=parts,
        )
