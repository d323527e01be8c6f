"""Stops and cancels on the disk from when they are sent until the ledger has them: the next process knows of them, too.

They wait for nothing here: `keep`, `step` and `done` return at once, and a task of its own writes. A disk that is
full or broken is said once and tried again; the stops are in memory all the while.
"""

import fcntl
import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from threading import Lock
from uuid import UUID, uuid4

import trio
from pydantic import TypeAdapter

from skygw.control.ledger import ENDS, CancelRequest, CommandRecord, CommandState, Transition, may_move
from skygw.errors import Hop
from skygw.ids import CommandId

log = logging.getLogger("skygw.control")

MAX_BYTES = 16 * 1024 * 1024
"""What is kept at most, here and in memory: 30,000 stops of the usual size."""
CLOSE_S = 0.5
RETRY_S = 5.0
"""Until a disk that failed is tried again."""

ENDED_UNWRITTEN = "the gateway ended before it was known whether it was written"
ENDED = "the gateway ended"

_RECORD = TypeAdapter(CommandRecord)
_STEP = TypeAdapter(Transition)
_CANCEL = TypeAdapter(CancelRequest)
_Life = tuple[CommandId, str]
"""An id, and when this life of it began: a stop that was never written may be sent again. Of a cancel its own uid."""


class SafingSpool:
    """One file for each process, locked while it lives; what dead ones left is taken over by `take_over`."""

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._open: dict[_Life, list[bytes]] = {}
        self._bytes = 0
        self._last_life: dict[CommandId, _Life] = {}
        self._fresh: list[bytes] = []
        self._file: int | None = None
        self._file_bytes = 0
        """With what is done; twice `max_bytes` at most."""
        self._path = directory / f"{uuid4()}.jsonl"
        self._writing = Lock()
        self._taken: dict[Path, tuple[int, set[_Life]]] = {}
        self.left_cancels: list[CancelRequest] = []
        """What `take_over` found of cancels, in the order they were asked for."""
        self._behind = False
        """Whether the file lacks something of what is kept."""
        self._said = False
        self._is_full = False
        self._wake = trio.Event()

    # What never waits.

    def keep(self, record: CommandRecord) -> None:
        """A stop that was sent, as it stands."""
        life = _life(record)
        if self._add(life, b'{"kept":%s}\n' % _RECORD.dump_json(record)):
            self._last_life[record.command_id] = life

    def step(self, command_id: CommandId, step: Transition) -> None:
        """What became known of it since; of what is not kept here nothing is noted."""
        life = self._last_life.get(command_id)
        if life is not None:
            self._add(life, b'{"step":"%s","to":%s}\n' % (str(command_id).encode(), _STEP.dump_json(step)))

    def keep_cancel(self, request: CancelRequest) -> None:
        """A cancel that was sent."""
        self._add(_of_cancel(request), b'{"cancel":%s}\n' % _CANCEL.dump_json(request))

    def done(self, record: CommandRecord) -> None:
        """The ledger has it, or will never have it."""
        self._forget(_life(record))

    def done_cancel(self, request: CancelRequest) -> None:
        """…a cancel."""
        self._forget(_of_cancel(request))

    def _forget(self, life: _Life) -> None:
        for path, (_, lives) in list(self._taken.items()):
            lives.discard(life)
            if not lives:
                self._let_go(path)
        lines = self._open.pop(life, None)
        if lines is None:
            return
        self._bytes -= sum(map(len, lines))
        if self._last_life.get(life[0]) == life:
            del self._last_life[life[0]]
        self._fresh.append(b'{"done":"%s","began":"%s"}\n' % (str(life[0]).encode(), life[1].encode()))
        self._wake.set()

    def _add(self, life: _Life, line: bytes) -> bool:
        if self._bytes + len(line) > self._max_bytes:
            if not self._is_full:
                log.warning("no more unrecorded stops and cancels are kept on the disk", extra={"bytes": self._bytes})
            self._is_full = True
            return False
        self._is_full = False
        self._open.setdefault(life, []).append(line)
        self._bytes += len(line)
        self._fresh.append(line)
        self._wake.set()
        return True

    # The file.

    async def run(self) -> None:
        """Writes until cancelled; then what is under way may still be written."""
        while True:
            with trio.move_on_after(RETRY_S if self._behind else inf):
                await self._wake.wait()
            self._wake = trio.Event()
            fresh, self._fresh = self._fresh, []
            everything = b"".join(line for lines in self._open.values() for line in lines)
            added = b"".join(fresh)
            begin_anew = self._behind or not everything or self._file_bytes + len(added) > 2 * self._max_bytes
            lines = everything if begin_anew else added
            try:
                await trio.to_thread.run_sync(self._write, lines, begin_anew, abandon_on_cancel=True)
            except OSError as error:
                self._behind = bool(everything)
                if not self._said:
                    log.warning(
                        "unrecorded stops cannot be kept on the disk: they are held in memory alone",
                        extra={"path": str(self._directory), "why": error.strerror},
                    )
                self._said = True
            else:
                self._behind = self._said = False
                self._file_bytes = len(lines) + (0 if begin_anew else self._file_bytes)

    def _write(self, lines: bytes, begin_anew: bool) -> None:
        with self._writing:
            if self._file is None:
                if not lines:
                    return
                self._file = self._create()
            if begin_anew:
                os.ftruncate(self._file, 0)
            while lines:
                lines = lines[os.write(self._file, lines) :]
            os.fsync(self._file)

    def _create(self) -> int:
        """Locked before it has its name, so that nobody takes it for a dead process's."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(self._path)
            folder = os.open(self._directory, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            draft.unlink(missing_ok=True)
            os.close(descriptor)
            raise
        return descriptor

    def close(self) -> None:
        """What is kept stays on the disk for the next process; a file without anything goes. Blocks for a moment."""
        for descriptor, _ in self._taken.values():
            os.close(descriptor)
        self._taken.clear()
        if not self._writing.acquire(timeout=CLOSE_S):
            return  # the disk hangs; the kernel closes the file with the process
        if self._file is not None:
            if not self._open:
                with suppress(OSError):
                    self._path.unlink()
            os.close(self._file)
            self._file = None

    # What dead processes left.

    def take_over(self) -> list[CommandRecord]:
        """What gateways that ended had sent and the ledger may not have, in the order it was sent: what nobody knows
        the end of is unknown. Each stays on the disk until `done`, as do the cancels, which are in `left_cancels` then.
        Blocking; a file that cannot be read is said.
        """
        found: list[CommandRecord] = []
        for path in sorted(self._directory.glob("*.jsonl")):
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("unrecorded stops cannot be read", extra={"path": str(path), "why": error.strerror})
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                lines = path.read_bytes().splitlines()
            except OSError:  # its process lives, or has just gone with it
                os.close(descriptor)
                continue
            left, cancels = _left_over(lines, path)
            self._taken[path] = (descriptor, {*map(_life, left), *map(_of_cancel, cancels)})
            found += left
            self.left_cancels += cancels
            if not left and not cancels:
                self._let_go(path)
        found.sort(key=lambda record: record.created_at)
        self.left_cancels.sort(key=lambda request: request.at)
        return found

    def _let_go(self, path: Path) -> None:
        descriptor, _ = self._taken.pop(path)
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _life(record: CommandRecord) -> _Life:
    return record.command_id, record.created_at.isoformat()


def _of_cancel(request: CancelRequest) -> _Life:
    return request.command_id, str(request.cancel_uid)


def _left_over(lines: Iterable[bytes], path: Path) -> tuple[list[CommandRecord], list[CancelRequest]]:
    """What was kept and not done. A line that was torn by the end of its process is passed over."""
    kept: dict[_Life, CommandRecord] = {}
    cancels: dict[_Life, CancelRequest] = {}
    torn = 0
    for line in lines:
        try:
            said = json.loads(line)
            if "kept" in said:
                record = _RECORD.validate_python(said["kept"])
                kept[_life(record)] = record
            elif "step" in said:
                step = _STEP.validate_python(said["to"])
                for record in kept.values():  # the last life of an id is the one that may still move
                    if str(record.command_id) == said["step"]:
                        _move(record, step)
            elif "cancel" in said:
                request = _CANCEL.validate_python(said["cancel"])
                cancels[_of_cancel(request)] = request
            else:
                life = CommandId(UUID(said["done"])), said["began"]
                kept.pop(life, None)
                cancels.pop(life, None)
        except (ValueError, KeyError, TypeError, AttributeError):  # pydantic's are ValueErrors
            torn += 1
    if torn:
        log.warning("lines of unrecorded stops were torn", extra={"path": str(path), "lines": torn})
    for record in kept.values():
        record.recorded_late = True
        now = datetime.now(UTC)
        if record.state is CommandState.RECEIVED:
            _move(record, Transition(now, CommandState.WRITTEN, Hop.GATEWAY, ENDED_UNWRITTEN))
        _move(record, Transition(now, CommandState.UNKNOWN, Hop.GATEWAY, ENDED))
    return list(kept.values()), list(cancels.values())


def _move(record: CommandRecord, step: Transition) -> None:
    if may_move(record.state, step.state):
        record.state = step.state
        record.transitions.append(step)
        if step.state in ENDS:
            record.ended_at = step.at
