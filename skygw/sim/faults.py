"""What a scenario can make wrong with one device, at any moment: the device looks here each time."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Stall(StrEnum):
    """The two ways of a driver call that never returns."""

    STUCK = "stuck"
    """Nothing moves."""

    SILENT = "silent"
    """The hardware does what it was told and the driver never says that it is done."""


@dataclass
class Faults:
    """A healthy device unless told otherwise. A stop interrupts a stalled call like any other."""

    stall: Stall | None = None
    fail: str | None = None
    """A sentence: every action from now on ends half way with a `DeviceFault` that says it."""

    fail_probability: float = 0.0
    """The chance, 0..1, that an action fails at a random point, drawn from the device's own seed."""

    slow: float = 1.0
    """Every action takes this many times as long."""

    lies: dict[str, Any] = field(default_factory=dict)
    """Snapshot fields that claim this, whatever is true."""

    unreadable: bool = False
    """The state cannot be read at all: asking raises `DeviceFault`."""

    deaf_to_stop: bool = False
    """The driver takes a stop without complaint, and the hardware goes on."""


@dataclass
class NodeFaults:
    """What a scenario can make wrong with the program of one installation rather than with its hardware."""

    silent: bool = False
    """Direct requests are taken and never answered."""
