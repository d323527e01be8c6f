"""The node's durable memory of what it owes the hub over HTTP: reports in order per task, and files on their way.

A file of its own beside the journal: it needs nothing of the same transaction, and the report of a stop must not wait
behind it. Blocking and not thread-safe: `work.py` calls it, one call at a time, from a thread.
"""

import json
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from skygw.client.spare_disk import SpareDisk
from skygw.client.work_items import Asset, AssetState, FailedItem, ItemKind, WorkItem
from skygw.errors import IdReused, Invalid, NotFound
from skygw.ids import TaskUid

FILE_NAME = "work.sqlite"
KEEP_VERIFIED_S = 30 * 24 * 3600.0
MAX_BODY_BYTES = 1024 * 1024
FAILED_SHOWN = 200

_TABLES = """
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, uid BLOB NOT NULL UNIQUE, lane TEXT NOT NULL, kind TEXT NOT NULL,
    task_uid BLOB, body TEXT NOT NULL, awaits TEXT NOT NULL, reason TEXT, at REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS items_waiting ON items (lane, id) WHERE reason IS NULL;
CREATE INDEX IF NOT EXISTS items_failed ON items (id) WHERE reason IS NOT NULL;
CREATE TABLE IF NOT EXISTS assets (
    uid BLOB PRIMARY KEY, path TEXT NOT NULL, size INTEGER NOT NULL, sha256 TEXT NOT NULL, content_type TEXT NOT NULL,
    task_uid BLOB, declaration TEXT NOT NULL, state TEXT NOT NULL, hub_uid BLOB, upload_url TEXT,
    acked INTEGER NOT NULL DEFAULT 0, reason TEXT, at REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS assets_hub_uid ON assets (hub_uid);
CREATE INDEX IF NOT EXISTS assets_declaration ON assets (declaration);
CREATE INDEX IF NOT EXISTS assets_state ON assets (state);
"""
_ASSET = "uid, path, size, sha256, content_type, task_uid, state, hub_uid, upload_url, acked, reason"


class Owed(NamedTuple):
    """How much there is to bring to the hub, and how much was set aside."""

    items: int
    files: int
    failed: int


class WorkQueue:
    """Raises `sqlite3.Error` when the disk fails, and then nothing of that call was kept."""

    def __init__(self, directory: Path, *, spare: SpareDisk) -> None:
        self._path = directory / FILE_NAME
        self._spare = spare
        try:
            self._connection = self._connect()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            # A node must come up with a torn file, too. What was in it is put aside for people.
            self._path.replace(self._path.with_suffix(f".damaged-{int(time.time())}"))
            self._connection = self._connect()
        spare.lay_by()
        self._connection.execute(
            "DELETE FROM assets WHERE state = ? AND at < ?", (AssetState.VERIFIED, time.time() - KEEP_VERIFIED_S)
        )

    def _connect(self) -> sqlite3.Connection:
        self._path.touch(mode=0o600)
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=0.2)
        try:
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.executescript(f"BEGIN IMMEDIATE; {_TABLES}; COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        self._connection.close()

    # Keeping.

    def keep(
        self, kind: ItemKind, task_uid: TaskUid, *, uid: UUID, body: dict[str, Any], assets: Collection[UUID] = ()
    ) -> bool:
        """Keeps a report; false for a progress that a nearly full disk has no room for. The same `uid` again is kept
        once. Raises `IdReused` for another body under it, `Invalid` for one that is too large.
        """
        text = _text(body)
        if kind is ItemKind.PROGRESS and self._spare.is_low():
            return False
        with self._transaction():
            known = self._connection.execute("SELECT body FROM items WHERE uid = ?", (uid.bytes,)).fetchone()
            if known is not None:
                if known[0] != text:
                    raise IdReused(f"The report {uid} is kept already, and says something else.")
                return True
            # A uid that is none of ours is the hub's own, and stands in the body as it should.
            awaits = [str(asset) for asset in assets if self._find_asset(asset) is not None]
            self._add(uid, str(task_uid), kind, task_uid, text, json.dumps(awaits))
        return True

    def keep_asset(self, asset: Asset, declaration: dict[str, Any]) -> Asset:
        """Keeps a file and that it is to be declared. The same file declared the same again is the same asset."""
        text = _text(declaration)
        with self._transaction():
            known = self._connection.execute(
                f"SELECT {_ASSET} FROM assets WHERE declaration = ? AND path = ? AND state != ?",  # noqa: S608
                (text, str(asset.path), AssetState.FAILED),
            ).fetchone()
            if known is not None:
                return _asset(known)
            self._connection.execute(
                "INSERT INTO assets (uid, path, size, sha256, content_type, task_uid, declaration, state, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    asset.uid.bytes,
                    str(asset.path),
                    asset.size,
                    asset.sha256,
                    asset.content_type,
                    _bytes(asset.task_uid),
                    text,
                    asset.state,
                    time.time(),
                ),
            )
            lane = str(asset.task_uid or asset.uid)
            self._add(asset.uid, lane, ItemKind.DECLARE, asset.task_uid, text, "[]")
        return asset

    def _add(self, uid: UUID, lane: str, kind: ItemKind, task_uid: TaskUid | None, body: str, awaits: str) -> None:
        self._connection.execute(
            "INSERT INTO items (uid, lane, kind, task_uid, body, awaits, at) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (uid.bytes, lane, kind, _bytes(task_uid), body, awaits, time.time()),
        )

    # Delivering.

    def lanes(self) -> list[str]:
        """Those in which something waits: of each what was kept first goes first."""
        return [lane for (lane,) in self._connection.execute("SELECT DISTINCT lane FROM items WHERE reason IS NULL")]

    def first(self, lane: str) -> WorkItem | None:
        row = self._connection.execute(
            "SELECT id, uid, kind, task_uid, body, awaits FROM items WHERE lane = ? AND reason IS NULL "
            "ORDER BY id LIMIT 1",
            (lane,),
        ).fetchone()
        if row is None:
            return None
        item_id, uid, kind, task_uid, body, awaits = row
        waited_for = tuple(UUID(text) for text in json.loads(awaits))
        return WorkItem(item_id, UUID(bytes=uid), ItemKind(kind), _task(task_uid), body, waited_for)

    def fill_in(self, item: WorkItem) -> WorkItem | None:
        """Puts the hub's uids into what the report says of assets, for good: each time it is sent it says the same.
        One that was set aside is left out. `None` while one is still to be declared.
        """
        if not item.awaits:
            return item
        hub_uids: dict[str, str | None] = {}
        for uid in item.awaits:
            asset = self._find_asset(uid)
            if asset is not None and asset.hub_uid is None and asset.state is not AssetState.FAILED:
                return None
            hub_uids[str(uid)] = None if asset is None or asset.hub_uid is None else str(asset.hub_uid)
        body = json.dumps(_translated(json.loads(item.body), hub_uids), ensure_ascii=False)
        with self._transaction():
            self._connection.execute("UPDATE items SET body = ?, awaits = '[]' WHERE id = ?", (body, item.id))
        return WorkItem(item.id, item.uid, item.kind, item.task_uid, body, ())

    def delivered(self, item: WorkItem) -> None:
        """The hub has it."""
        self._connection.execute("DELETE FROM items WHERE id = ?", (item.id,))
        self._spare.lay_by()

    def declared(self, item: WorkItem, *, hub_uid: UUID, state: AssetState, upload_url: str | None) -> None:
        """The hub knows the file, and where its bytes go if it wants them."""
        with self._transaction():
            self._connection.execute(
                "UPDATE assets SET hub_uid = ?, state = ?, upload_url = ?, acked = 0 WHERE uid = ?",
                (hub_uid.bytes, state, upload_url, item.uid.bytes),
            )
            self._connection.execute("DELETE FROM items WHERE id = ?", (item.id,))

    def set_aside(self, item: WorkItem, reason: str) -> None:
        """What comes behind it goes on."""
        now = time.time()
        with self._transaction():
            if item.kind is ItemKind.DECLARE:
                self._connection.execute("DELETE FROM items WHERE id = ?", (item.id,))
                self._connection.execute(
                    "UPDATE assets SET state = ?, reason = ?, at = ? WHERE uid = ?",
                    (AssetState.FAILED, reason, now, item.uid.bytes),
                )
            else:
                self._connection.execute("UPDATE items SET reason = ?, at = ? WHERE id = ?", (reason, now, item.id))

    # Files.

    def asset(self, uid: UUID) -> Asset | None:
        """By our uid or the hub's."""
        row = self._connection.execute(
            f"SELECT {_ASSET} FROM assets WHERE uid = ? OR hub_uid = ? LIMIT 1",  # noqa: S608 - names of ours
            (uid.bytes, uid.bytes),
        ).fetchone()
        return None if row is None else _asset(row)

    def assets(self, state: AssetState) -> list[Asset]:
        found = self._connection.execute(
            f"SELECT {_ASSET} FROM assets WHERE state = ? ORDER BY at",  # noqa: S608
            (state,),
        )
        return [_asset(row) for row in found]

    def moved(self, uid: UUID, *, state: AssetState, offset: int | None = None, reason: str | None = None) -> None:
        """An asset is now in this state; what the hub has acknowledged of it is kept with it."""
        self._connection.execute(
            "UPDATE assets SET state = ?, acked = coalesce(?, acked), reason = ?, at = ? WHERE uid = ?",
            (state, offset, reason, time.time(), uid.bytes),
        )

    def declare_again(self, uid: UUID) -> None:
        """The hub has lost it, or wants what it did not want before. Told the same again, it says where bytes go."""
        with self._transaction():
            row = self._connection.execute(
                "SELECT declaration, task_uid FROM assets WHERE uid = ?", (uid.bytes,)
            ).fetchone()
            if row is None:
                raise NotFound(f"There is no asset {uid} here.")
            declaration, task_uid = row
            self._connection.execute(
                "UPDATE assets SET state = ?, upload_url = NULL, acked = 0, reason = NULL, at = ? WHERE uid = ?",
                (AssetState.KEPT, time.time(), uid.bytes),
            )
            self._connection.execute("DELETE FROM items WHERE uid = ?", (uid.bytes,))
            # Its own lane: what its task has said meanwhile is not said after it.
            self._add(uid, str(uid), ItemKind.DECLARE, _task(task_uid), declaration, "[]")

    # What people see.

    def owed(self) -> Owed:
        found = self._connection.execute(
            "SELECT (SELECT count(*) FROM items WHERE reason IS NULL), "
            "(SELECT count(*) FROM assets WHERE state IN (?, ?)), "
            "(SELECT count(*) FROM items WHERE reason IS NOT NULL) + (SELECT count(*) FROM assets WHERE state = ?)",
            (AssetState.UPLOADING, AssetState.UPLOADED, AssetState.FAILED),
        ).fetchone()
        return Owed(*found)

    def failed(self) -> list[FailedItem]:
        """The newest, at most `FAILED_SHOWN`."""
        found = self._connection.execute(
            "SELECT uid, kind, task_uid, reason, at FROM items WHERE reason IS NOT NULL UNION ALL "
            "SELECT uid, CASE WHEN hub_uid IS NULL THEN 'declare' ELSE 'upload' END, task_uid, coalesce(reason, ''), "
            "at FROM assets WHERE state = ? ORDER BY at DESC LIMIT ?",
            (AssetState.FAILED, FAILED_SHOWN),
        )
        return [
            FailedItem(UUID(bytes=uid), kind, _task(task_uid), reason, datetime.fromtimestamp(at, UTC))
            for uid, kind, task_uid, reason, at in found
        ]

    def try_again(self, uid: UUID) -> bool:
        """Puts what was set aside at the end of its lane. Whether there was such a thing."""
        asset = self.asset(uid)
        if asset is not None and asset.state is AssetState.FAILED:
            self.declare_again(asset.uid)
            return True
        with self._transaction():
            row = self._connection.execute(
                "DELETE FROM items WHERE uid = ? AND reason IS NOT NULL RETURNING lane, kind, task_uid, body, awaits",
                (uid.bytes,),
            ).fetchone()
            if row is not None:
                lane, kind, task_uid, body, awaits = row
                self._add(uid, lane, ItemKind(kind), _task(task_uid), body, awaits)
        return row is not None

    def drop_failed(self, uid: UUID) -> bool:
        """Forgets what was set aside. Whether there was such a thing."""
        with self._transaction():
            items = self._connection.execute(
                "DELETE FROM items WHERE uid = ? AND reason IS NOT NULL", (uid.bytes,)
            ).rowcount
            assets = self._connection.execute(
                "DELETE FROM assets WHERE uid = ? AND state = ?", (uid.bytes, AssetState.FAILED)
            ).rowcount
        return items + assets > 0

    def _find_asset(self, uid: UUID) -> Asset | None:
        row = self._connection.execute(f"SELECT {_ASSET} FROM assets WHERE uid = ?", (uid.bytes,)).fetchone()  # noqa: S608
        return None if row is None else _asset(row)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _text(body: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(body, allow_nan=False, ensure_ascii=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise Invalid(f"This is no JSON that the hub would take: {error}.") from None
    if size > MAX_BODY_BYTES:
        raise Invalid(f"A report of {size} bytes cannot be sent; {MAX_BODY_BYTES} is the limit.")
    return text


def _translated(value: Any, hub_uids: Mapping[str, str | None]) -> Any:
    """Our uids of assets become the hub's wherever a report names assets; what has none there is left out."""
    if isinstance(value, dict):
        return {
            key: _listed(member, hub_uids) if key in ("assets", "assetUids") else _translated(member, hub_uids)
            for key, member in value.items()
        }
    return [_translated(member, hub_uids) for member in value] if isinstance(value, list) else value


def _listed(named: list[str], hub_uids: Mapping[str, str | None]) -> list[str]:
    found = [hub_uids.get(uid, uid) for uid in named]
    return [uid for uid in found if uid is not None]


def _bytes(uid: UUID | None) -> bytes | None:
    return None if uid is None else uid.bytes


def _task(raw: bytes | None) -> TaskUid | None:
    return None if raw is None else TaskUid(UUID(bytes=raw))


def _asset(row: tuple[Any, ...]) -> Asset:
    uid, path, size, sha256, content_type, task_uid, state, hub_uid, upload_url, acked, reason = row
    return Asset(
        uid=UUID(bytes=uid),
        path=Path(path),
        size=size,
        sha256=sha256,
        content_type=content_type,
        task_uid=_task(task_uid),
        state=AssetState(state),
        hub_uid=None if hub_uid is None else UUID(bytes=hub_uid),
        upload_url=upload_url,
        offset=acked,
        reason=reason,
    )
