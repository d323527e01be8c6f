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

    fails_on_stop: str | None = None
    """A sentence: a stop ends with a `DeviceFault` that says it, and the hardware goes on."""

    late_stop_s: float = 0.0
    """The driver takes a stop without complaint, and what travels stands so many simulated seconds later."""

    moves_again_after_s: float | None = None
    """What was stopped on its way stands for so many simulated seconds, and then goes on to where it was sent."""

    asks_every_s: float = 0.0
    """The driver asks the hardware no more often than this, in simulated seconds, and repeats its answer; infinite:
    it goes on saying what it said first from now on.
    """

    frozen_by_stop: bool = False
    """From a stop on the driver repeats what it said then, until the next action."""


@dataclass
class NodeFaults:
    """What a scenario can make wrong with the program of one installation rather than with its hardware."""

    silent: bool = False
    """Direct requests are taken and never answered."""
