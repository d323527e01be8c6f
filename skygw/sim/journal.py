"""The device journal: one line per physical action of a site, as it happens; it judges what really moved.

A command that was carried twice shows here as two movements, whatever the gateway and the node say about it.
"""

import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from skygw.ids import CommandId, DeviceUid
from skygw.sim.clock import SimClock


class Action(StrEnum):
    """Everything that a simulated site can do physically."""

    SLEW_STARTED = "slew_started"
    SLEW_REACHED = "slew_reached"
    SLEW_STOPPED = "slew_stopped"
    OFFSET_STARTED = "offset_started"
    OFFSET_REACHED = "offset_reached"
    TRACKING_STARTED = "tracking_started"
    TRACKING_STOPPED = "tracking_stopped"
    PARK_STARTED = "park_started"
    PARK_REACHED = "park_reached"
    UNPARK_STARTED = "unpark_started"
    UNPARKED = "unparked"
    SHUTTER_OPENED = "shutter_opened"
    SHUTTER_CLOSED = "shutter_closed"
    EXPOSURE_STARTED = "exposure_started"
    EXPOSURE_ENDED = "exposure_ended"
    EXPOSURE_ABORTED = "exposure_aborted"
    READOUT = "readout"
    FRAME_STORED = "frame_stored"
    FOCUSER_MOVING = "focuser_moving"
    FOCUSER_REACHED = "focuser_reached"
    FOCUSER_STOPPED = "focuser_stopped"
    FILTER_WHEEL_MOVING = "filter_wheel_moving"
    FILTER_WHEEL_REACHED = "filter_wheel_reached"
    FILTER_WHEEL_STOPPED = "filter_wheel_stopped"
    ROOF_MOVING = "roof_moving"
    ROOF_OPENED = "roof_opened"
    ROOF_CLOSED = "roof_closed"
    ROOF_STOPPED = "roof_stopped"
    ROOF_STRUCK_MOUNT = "roof_struck_mount"
    RAIN_BEGAN = "rain_began"
    RAIN_ENDED = "rain_ended"
    STOP_RECEIVED = "stop_received"
    """A stop with nothing to stop."""
    STOP_IGNORED = "stop_ignored"
    FAULT = "fault"
    JOURNAL_REOPENED = "journal_reopened"


EFFECTS = frozenset(
    {
        Action.SLEW_STARTED,
        Action.OFFSET_STARTED,
        Action.TRACKING_STARTED,
        Action.PARK_STARTED,
        Action.UNPARK_STARTED,
        Action.EXPOSURE_STARTED,
        Action.FOCUSER_MOVING,
        Action.FILTER_WHEEL_MOVING,
        Action.ROOF_MOVING,
    }
)
"""The actions that begin something: what must not happen twice for one command."""


@dataclass(frozen=True)
class Order:
    """On whose account something happens: a command, or a cause on site (a person, a policy, the weather)."""

    command_id: CommandId | None = None
    cause: str | None = None

    def __post_init__(self) -> None:
        if self.command_id is None and not self.cause:
            raise ValueError("An order without a command must name its cause.")


@dataclass(frozen=True)
class Entry:
    """One line; ids are text. `simulated_time` is the site's clock, it may be wrong; `elapsed_s` is not."""

    number: int
    simulated_time: str
    elapsed_s: float
    wall_time: str
    device_uid: str | None
    action: Action
    command_id: str | None
    cause: str | None
    details: dict[str, Any] = field(default_factory=dict)


class JournalDamaged(Exception):
    """A line that is not the last one cannot be read."""


class DeviceJournal(ABC):
    """Numbers the actions of one site from 1 on and keeps them in order. Recording is no checkpoint."""

    def __init__(self, clock: SimClock, *, last_number: int = 0) -> None:
        self._clock = clock
        self._last_number = last_number
        self.listeners: list[Callable[[Entry], None]] = []
        """Told of each line, in the task that wrote it: they must be quick and raise nothing."""

    def record(
        self,
        device_uid: DeviceUid | None,
        action: Action,
        order: Order,
        details: dict[str, Any] | None = None,
    ) -> Entry:
        """Write one action down and return its line. Raises `OSError` if the file cannot be written."""
        entry = Entry(
            number=self._last_number + 1,
            simulated_time=self._clock.now().isoformat(),
            elapsed_s=self._clock.elapsed(),
            wall_time=datetime.now(UTC).isoformat(),
            device_uid=None if device_uid is None else str(device_uid),
            action=action,
            command_id=None if order.command_id is None else str(order.command_id),
            cause=order.cause,
            details=details or {},
        )
        self._keep(entry)
        self._last_number = entry.number
        for tell in self.listeners:
            tell(entry)
        return entry

    @abstractmethod
    def _keep(self, entry: Entry) -> None: ...

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Everything so far, oldest first."""


class MemoryJournal(DeviceJournal):
    """A journal that lasts as long as the process and grows without bound: for tests and short runs."""

    def __init__(self, clock: SimClock) -> None:
        super().__init__(clock)
        self._entries: list[Entry] = []

    def _keep(self, entry: Entry) -> None:
        self._entries.append(entry)

    def entries(self) -> list[Entry]:
        return list(self._entries)


class FileJournal(DeviceJournal):
    """A journal in a file of JSON lines, kept across restarts. Open it with `open_journal`."""

    def __init__(self, clock: SimClock, path: Path, descriptor: int, *, fsync: bool, last_number: int) -> None:
        super().__init__(clock, last_number=last_number)
        self.path = path
        self._descriptor = descriptor
        self._fsync = fsync

    def _keep(self, entry: Entry) -> None:
        line = json.dumps(asdict(entry), separators=(",", ":"), allow_nan=False).encode() + b"\n"
        while line:
            line = line[os.write(self._descriptor, line) :]
        if self._fsync:
            os.fsync(self._descriptor)

    def entries(self) -> list[Entry]:
        return read_journal(self.path)


@contextmanager
def open_journal(clock: SimClock, path: Path, *, fsync: bool = False) -> Iterator[FileJournal]:
    """Open or make the journal file; a half-written last line is cut off and said so in a new one.

    With `fsync` every line is on the disk before the device moves on. Raises `JournalDamaged`, `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_journal(path) if path.exists() else []
    torn_bytes = _cut_torn_end(path) if path.exists() else 0
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        journal = FileJournal(clock, path, descriptor, fsync=fsync, last_number=known[-1].number if known else 0)
        if known or torn_bytes:
            journal.record(None, Action.JOURNAL_REOPENED, Order(cause="restart"), {"torn_bytes": torn_bytes})
        yield journal
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> list[Entry]:
    """Read a journal file, also one that another process is writing; a torn last line is left out.

    Raises `JournalDamaged` if any other line does not read.
    """
    *lines, _torn = path.read_bytes().split(b"\n")
    entries = []
    for number, line in enumerate(lines, start=1):
        try:
            fields = json.loads(line)
            entries.append(Entry(**{**fields, "action": Action(fields["action"])}))
        except (ValueError, TypeError, KeyError) as error:
            raise JournalDamaged(f"Line {number} of the journal {path} cannot be read: {error}.") from error
    return entries


def _cut_torn_end(path: Path) -> int:
    """Cut what follows the last line end, and return how many bytes that was."""
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        os.truncate(path, whole)
    return len(written) - whole


def actions_by_command(entries: Iterable[Entry]) -> dict[str | None, list[Entry]]:
    """The lines of each command in order; under None what happened on site's own account."""
    found: dict[str | None, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.command_id, []).append(entry)
    return found


def movers_of(device_uid: DeviceUid, entries: Iterable[Entry]) -> list[str]:
    """Who set this device in motion, in order: a command id, or the cause if it was nobody's command."""
    return [
        entry.command_id or str(entry.cause)
        for entry in entries
        if entry.device_uid == str(device_uid) and entry.action in EFFECTS
    ]


def effects_of(command_id: CommandId, entries: Iterable[Entry]) -> list[Entry]:
    """What a command began, in order; empty if it never moved anything."""
    return [entry for entry in entries if entry.command_id == str(command_id) and entry.action in EFFECTS]


def done_twice(entries: Iterable[Entry]) -> dict[tuple[str, str | None, str], int]:
    """(command id, device uid, action) of whatever one command began more than once, with how often.

    The steps of an offset pattern are different actions: they carry their own `step`.
    """
    counted = Counter(
        (entry.command_id, entry.device_uid, entry.action.value, entry.details.get("step"))
        for entry in entries
        if entry.command_id is not None and entry.action in EFFECTS
    )
    return {
        (command_id, device_uid, action): times
        for (command_id, device_uid, action, _step), times in counted.items()
        if times > 1
    }
