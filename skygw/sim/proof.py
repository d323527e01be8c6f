"""Proof of what a site's devices do: they are read back until their readings agree, because drivers lie.

How much a reading is worth, and which lies no reading finds, stands in docs/simulation.md.
"""

from collections.abc import Sequence
from math import inf
from typing import Any

import trio

from skygw.ids import CommandId
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Device, DeviceFault

INTERVAL_S = 0.2
"""Simulated seconds between two readings."""

MOST_SAMPLES = 10
"""For what is not meant to be at rest; two that agree are enough."""

PATIENCE_S = 2.0
"""Simulated seconds for a stop that comes late, beyond what proving rest takes by itself."""


async def prove(devices: Sequence[Device], clock: SimClock, *, to_the_end: bool = False) -> dict[str, Any]:
    """`{"devices": [{"device_uid", "state", "basis", "samples", "settled_ms"}]}`, devices in the order given.

    `basis` is `read_back`, or `assumed` with state `unknown` for a device that cannot be read. One whose
    readings never agree has state `moving` and no `settled_ms`. Ends after at most `MOST_SAMPLES` readings;
    with `to_the_end` a cancel does not cut it short.
    """
    readings = [_Reading(device) for device in devices]
    return await _read_back(readings, clock, at_most_s=(MOST_SAMPLES - 1) * INTERVAL_S, to_the_end=to_the_end)


async def prove_rest(
    devices: Sequence[Device], clock: SimClock, *, command_id: CommandId, to_the_end: bool = False
) -> dict[str, Any]:
    """As `prove`, after a stop or a cancel: `settled_ms` is there for a device that stands, and for no other.

    It has said that it stands, and where, for longer than its driver is known to move late, and its driver has
    noticed what `command_id` made it do. Where no reading can show that, the basis is `assumed`.
    """
    readings = [_RestReading(device, command_id) for device in devices]
    longest = max((device.late_moves_s for device in devices if device.late_moves_s < inf), default=0.0)
    return await _read_back(readings, clock, at_most_s=2 * longest + PATIENCE_S, to_the_end=to_the_end)


def shows_rest(proof: dict[str, Any]) -> bool:
    """Whether every device of a `prove_rest` was read back and stands."""
    return all(device["basis"] == "read_back" and device["settled_ms"] is not None for device in proof["devices"])


def shows_movement(proof: dict[str, Any]) -> bool:
    """Whether a device of a `prove_rest` was read back and does not stand."""
    return any(device["basis"] == "read_back" and device["settled_ms"] is None for device in proof["devices"])


class _Reading:
    """What one device said so far."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._last: dict[str, Any] | None = None
        self._since_ms = 0
        self._samples = 0
        self._settled_ms: int | None = None
        self._doubtful = False

    @property
    def over(self) -> bool:
        return self._doubtful or self._settled_ms is not None

    def take(self, at_ms: int) -> None:
        if self.over:
            return
        try:
            snapshot = self._device.snapshot()
        except DeviceFault:
            self._doubtful = True
            return
        self._samples += 1
        still = {name: snapshot[name] for name in self._device.still_fields}
        if still != self._last:
            self._last, self._since_ms = still, at_ms
        elif self._is_settled(still, at_ms - self._since_ms):
            self._settled_ms = at_ms

    def _is_settled(self, said: dict[str, Any], for_ms: int) -> bool:  # noqa: ARG002 - two that agree
        return True

    def said(self) -> dict[str, Any]:
        if self._doubtful or self._last is None:
            state, basis = "unknown", "assumed"
        else:
            state, basis = (str(self._last["state"]) if self.over else self._restless()), "read_back"
        return {
            "device_uid": str(self._device.uid),
            "state": state,
            "basis": basis,
            "samples": self._samples,
            "settled_ms": self._settled_ms,
        }

    def _restless(self) -> str:
        return "moving"


class _RestReading(_Reading):
    """Of a device that was told to stop."""

    def __init__(self, device: Device, command_id: CommandId) -> None:
        super().__init__(device)
        self._command_id = command_id
        self._doubtful = device.late_moves_s == inf

    def _is_settled(self, said: dict[str, Any], for_ms: int) -> bool:
        if for_ms <= self._device.late_moves_s * 1000 or not self._device.is_at_rest(said):
            return False
        self._doubtful = not self._device.has_shown_life(self._command_id, said)
        return not self._doubtful

    def _restless(self) -> str:
        """What it does instead of standing, where it says so itself."""
        said = self._last or {}
        return "moving" if said.get("state") in self._device.resting_states else str(said.get("state"))


async def _read_back(
    readings: Sequence[_Reading], clock: SimClock, *, at_most_s: float, to_the_end: bool
) -> dict[str, Any]:
    began_at = clock.elapsed()
    with trio.CancelScope(shield=to_the_end):
        while True:
            passed_s = clock.elapsed() - began_at
            for reading in readings:
                reading.take(round(passed_s * 1000))
            # A clock that jumps adds its steps up to a hair less than their sum.
            if all(reading.over for reading in readings) or passed_s + INTERVAL_S / 2 > at_most_s:
                break
            await clock.sleep(INTERVAL_S)
    return {"devices": [reading.said() for reading in readings]}
