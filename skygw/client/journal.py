"""The node's durable memory in one SQLite file: frames on their way to the hub, and what became of commands.

Both are in one file because a command's outcome and the report of it must be written together or not at all.
Blocking and not thread-safe: `outbox.py` calls it, one call at a time, from a thread.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from skygw.client.spare_disk import SpareDisk
from skygw.errors import Invalid
from skygw.ids import CommandId, OutboxUid
from skygw.protocol.codec import BadFrame, encode, from_node
from skygw.protocol.json_text import Opaque, too_complex
from skygw.protocol.limits import MAX_TEXT_BYTES
from skygw.protocol.node_frames import Durable, PublishCommandResult, PublishGap

FILE_NAME = "journal.sqlite"
KEEP_OUTCOMES_S = 30 * 24 * 3600.0
NOTHING_LOST = "{}"

_TABLES = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS frames (seq INTEGER PRIMARY KEY, text TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (
    command_id BLOB PRIMARY KEY, report TEXT NOT NULL, ended INTEGER NOT NULL, at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS outcomes_at ON outcomes (at);
"""


class StateInUse(Exception):
    """Another process has this state directory open."""


class Row(NamedTuple):
    """A frame as it will be sent; `size` is bytes."""

    seq: int
    text: str
    size: int


class Journal:
    """Raises `sqlite3.Error` when the disk fails or is full; then nothing of that call was kept."""

    def __init__(self, directory: Path, *, max_bytes: int, spare: SpareDisk | None = None) -> None:
        self._path = directory / FILE_NAME
        self._spare = spare
        self._max_bytes = max_bytes
        try:
            self._connection = self._connect()
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StateInUse(f"{directory} is in use by another running node.") from None
            raise
        except sqlite3.DatabaseError:
            # Nobody drives up a mountain for a torn file: it is put aside and the loss declared.
            self._path.replace(self._path.with_suffix(f".damaged-{int(time.time())}"))
            self._connection = self._connect()
            self._size = 0
            self.append(_gap(reason="journal_damaged"), may_drop=False)
        self._size = self._measure()
        self._forget_old()

    def _connect(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0.2)
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES}")
            for key, value in (
                ("outbox_uid", str(uuid4())),
                ("next_seq", 1),
                ("acked", 0),
                ("dropped", 0),
                ("lost", NOTHING_LOST),
            ):
                connection.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (key, value))
            connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _measure(self) -> int:
        return int(self._connection.execute("SELECT coalesce(sum(size), 0) FROM frames").fetchone()[0])

    def close(self) -> None:
        self._connection.close()

    # The outbox.

    @property
    def outbox_uid(self) -> OutboxUid:
        return OutboxUid(UUID(str(self._meta("outbox_uid"))))

    @property
    def last_seq(self) -> int:
        return int(self._meta("next_seq")) - 1

    @property
    def acked(self) -> int:
        return int(self._meta("acked"))

    def append(self, frame: Durable, *, may_drop: bool) -> int | None:
        """Keeps a frame under the next `seq` (its own is ignored) and returns it.

        With `may_drop`, a full outbox returns `None`: the loss is counted, and declared by a `publish_gap` in its
        place as soon as there is room: how many, of which kinds, from when to when. Raises `Invalid` for a frame
        larger or deeper than a message may be.
        """
        with self._transaction():
            return self._append(frame, may_drop=may_drop)

    def read(self, *, after: int, at_most: int, max_bytes: int) -> list[Row]:
        """The next frames in order, at least one if there is any."""
        rows: list[Row] = []
        total = 0
        for seq, text, size in self._connection.execute(
            "SELECT seq, text, size FROM frames WHERE seq > ? ORDER BY seq LIMIT ?", (after, at_most)
        ):
            total += size
            if rows and total > max_bytes:
                break
            rows.append(Row(seq, text, size))
        return rows

    def acknowledge(self, seq: int) -> None:
        """Everything up to `seq` is the hub's now. Never moves back."""
        with self._transaction():
            if seq > self.acked:
                gone = self._connection.execute("SELECT coalesce(sum(size), 0) FROM frames WHERE seq <= ?", (seq,))
                self._size -= int(gone.fetchone()[0])  # not measured anew: of a night's backlog that takes long
                self._connection.execute("DELETE FROM frames WHERE seq <= ?", (seq,))
                self._set("acked", seq)
                self._declare_dropped()

    def start_anew(self, *, hub_has: int) -> None:
        """Gives the outbox another uid and numbers what waits from 1, because the hub's cursor does not fit ours.

        Behind ours: the hub lost what it had acknowledged, and that is declared. Ahead of ours: this disk is older
        than what was sent from it.
        """
        with self._transaction():
            lost = self.acked - hub_has
            of_it = {"outbox_uid": str(self.outbox_uid), "from_seq": hub_has + 1, "to_seq": self.acked}
            waiting = [_decoded(text) for (text,) in self._connection.execute("SELECT text FROM frames ORDER BY seq")]
            self._connection.execute("DELETE FROM frames")
            self._size = 0
            self._set("outbox_uid", str(uuid4()))
            self._set("acked", 0)
            self._set("next_seq", 1)
            if lost > 0:
                self._append(_gap(reason="lost_at_hub", count=lost, **of_it), may_drop=False)
            elif lost < 0:
                self._append(_gap(reason="node_disk_restored"), may_drop=False)
            for frame in waiting:
                self._append(frame, may_drop=False)

    # The outcomes.

    def begin_command(
        self, command_id: CommandId, reports: Iterable[PublishCommandResult]
    ) -> PublishCommandResult | None:
        """Claims an id and keeps the first reports of it, in one transaction. Returns what is known of it when the
        id was claimed before; nothing is kept then.
        """
        with self._transaction():
            known = self._report(command_id)
            if known is None:
                self._forget_old()
                for report in reports:
                    self._keep(report)
            return known

    def report(self, report: PublishCommandResult) -> None:
        """Keeps a step of a command and its report together. A command that has ended stays as it ended."""
        with self._transaction():
            ended = self._connection.execute(
                "SELECT ended FROM outcomes WHERE command_id = ?", (report.command_id.bytes,)
            ).fetchone()
            if ended is None or not ended[0]:
                self._keep(report)

    def publish_again(
        self, command_ids: Iterable[CommandId], *, never: Mapping[CommandId, PublishCommandResult] | None = None
    ) -> int:
        """Puts what is known of these commands into the outbox once more; returns how many. Of an unknown id the report
        in `never`, its end, is kept and put there; unknown ids beside those are skipped.
        """
        count = 0
        with self._transaction():
            for command_id in command_ids:
                known = self._report(command_id)
                if known is not None:
                    count += self._append(known, may_drop=True, counted=False) is not None
                elif never is not None and command_id in never:
                    self._keep(never[command_id])
                    count += 1
        return count

    def command_ids(self, *, at_most: int) -> list[CommandId]:
        """The newest ids, newest first."""
        found = self._connection.execute("SELECT command_id FROM outcomes ORDER BY at DESC LIMIT ?", (at_most,))
        return [CommandId(UUID(bytes=raw)) for (raw,) in found]

    def unfinished(self) -> list[PublishCommandResult]:
        """Commands that were going on when the program ended."""
        return [_result(text) for (text,) in self._connection.execute("SELECT report FROM outcomes WHERE NOT ended")]

    # Inside a transaction.

    def _append(self, frame: Durable, *, may_drop: bool, counted: bool = True) -> int | None:
        full = self._full() if may_drop else None
        if full is not None:
            if counted:
                self._drop(frame, reason=full)
            return None
        self._declare_dropped()
        seq = int(self._meta("next_seq"))
        text = encode(frame.model_copy(update={"seq": seq}))
        size = len(text.encode())
        if size > MAX_TEXT_BYTES:
            raise Invalid(f"A {frame.kind} of {size} bytes cannot be sent; {MAX_TEXT_BYTES} is the limit.")
        if problem := too_complex(text):
            raise Invalid(f"This {frame.kind} cannot be sent: {problem}.")
        self._connection.execute("INSERT INTO frames VALUES (?, ?, ?)", (seq, text, size))
        self._size += size
        self._set("next_seq", seq + 1)
        return seq

    def _full(self) -> str | None:
        """Why nothing is taken that may be left out, as a gap's reason."""
        if self._size > self._max_bytes:
            return "outbox_full"
        return "disk_full" if self._spare is not None and self._spare.is_low() else None

    def _drop(self, frame: Durable, *, reason: str) -> None:
        """Counts what is lost, by kind, and from when to when it was."""
        at = None if frame.observed_at is None else frame.observed_at.isoformat()
        lost: dict[str, Any] = json.loads(str(self._meta("lost"))) or {"reason": reason, "from": at, "kinds": {}}
        lost["to"] = at
        lost["kinds"][frame.kind] = lost["kinds"].get(frame.kind, 0) + 1
        self._set("lost", json.dumps(lost))
        self._set("dropped", int(self._meta("dropped")) + 1)

    def _declare_dropped(self) -> None:
        dropped = int(self._meta("dropped"))
        if dropped and self._full() is None:
            lost = json.loads(str(self._meta("lost")))
            self._set("dropped", 0)
            self._set("lost", NOTHING_LOST)
            self._append(_gap(**{"reason": "outbox_full", **lost}, count=dropped), may_drop=False)

    def _keep(self, report: PublishCommandResult) -> None:
        self._append(report, may_drop=False)
        self._connection.execute(
            "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)",
            (report.command_id.bytes, encode(report), report.status not in ("accepted", "running"), time.time()),
        )

    def _forget_old(self) -> None:
        self._connection.execute("DELETE FROM outcomes WHERE ended AND at < ?", (time.time() - KEEP_OUTCOMES_S,))

    def _report(self, command_id: CommandId) -> PublishCommandResult | None:
        row = self._connection.execute(
            "SELECT report FROM outcomes WHERE command_id = ?", (command_id.bytes,)
        ).fetchone()
        return None if row is None else _result(row[0])

    def _meta(self, key: str) -> str | int:
        value: str | int = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()[0]
        return value

    def _set(self, key: str, value: str | int) -> None:
        self._connection.execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._size = self._measure()
            raise
        self._connection.execute("COMMIT")


def _gap(*, reason: str, **known: Any) -> PublishGap:
    return PublishGap(seq=1, data=Opaque.of({"reason": reason, **known}), observed_at=datetime.now(UTC))


def _decoded(text: str) -> Durable:
    (read,) = from_node.decode(text)
    if isinstance(read, BadFrame) or not isinstance(read.frame, Durable):
        raise sqlite3.DatabaseError(f"the journal holds something that is no durable frame: {text[:80]}")
    return read.frame


def _result(text: str) -> PublishCommandResult:
    frame = _decoded(text)
    if not isinstance(frame, PublishCommandResult):
        raise sqlite3.DatabaseError(f"the journal holds something that is no command result: {text[:80]}")
    return frame
