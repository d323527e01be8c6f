"""Proof of what a site's devices do: they are read back until two readings agree, because drivers lie."""

from collections.abc import Sequence
from typing import Any

import trio

from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Device, DeviceFault

INTERVAL_S = 0.2
"""Simulated seconds between two readings."""

MOST_SAMPLES = 10


async def prove(devices: Sequence[Device], clock: SimClock, *, to_the_end: bool = False) -> dict[str, Any]:
    """`{"devices": [{"device_uid", "state", "basis", "samples", "settled_ms"}]}`, devices in the order given.

    `basis` is `read_back`, or `assumed` with state `unknown` for a device that cannot be read. One that
    never comes to rest has state `moving` and no `settled_ms`. Ends after at most `MOST_SAMPLES` readings;
    with `to_the_end` a cancel does not cut it short.
    """
    began_at = clock.elapsed()
    readings = {device.uid: _Reading(device) for device in devices}
    with trio.CancelScope(shield=to_the_end):
        for sample in range(MOST_SAMPLES):
            if sample:
                await clock.sleep(INTERVAL_S)
            for reading in readings.values():
                reading.take(round((clock.elapsed() - began_at) * 1000))
            if all(reading.over for reading in readings.values()):
                break
    return {"devices": [reading.said() for reading in readings.values()]}


class _Reading:
    """What one device said so far."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._last: dict[str, Any] | None = None
        self._samples = 0
        self._settled_ms: int | None = None
        self._unreadable = False

    @property
    def over(self) -> bool:
        return self._unreadable or self._settled_ms is not None

    def take(self, at_ms: int) -> None:
        if self.over:
            return
        try:
            snapshot = self._device.snapshot()
        except DeviceFault:
            self._unreadable = True
            return
        self._samples += 1
        still = {name: snapshot[name] for name in self._device.still_fields}
        if still == self._last:
            self._settled_ms = at_ms
        self._last = still

    def said(self) -> dict[str, Any]:
        if self._unreadable or self._last is None:
            state, basis = "unknown", "assumed"
        else:
            state, basis = (str(self._last["state"]) if self.over else "moving"), "read_back"
        return {
            "device_uid": str(self._device.uid),
            "state": state,
            "basis": basis,
            "samples": self._samples,
            "settled_ms": self._settled_ms,
        }
