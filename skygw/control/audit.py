"""The audit of commands as it is signed, carried away and checked: chains that nobody mends unseen (docs/adr/0014)."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

FORMAT = "skygw-audit-1"
BEFORE_THE_FIRST = bytes(32)
"""What the first entry of a chain follows."""

Verify = Callable[[str, bytes, bytes], str | None]
"""What is wrong with a signature, given the key's id, the signature and what was signed; `None` if nothing is."""


class AuditBroken(Exception):
    """Something of the audit is missing, changed or forged: one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One sealed step; `text` is the JSON its hash is over."""

    install_id: UUID
    position: int
    text: str
    hash: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a gateway signed: up to `position` the chain had `hash`."""

    install_id: UUID
    position: int
    hash: bytes
    made_at: datetime
    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """Where the database says that a chain ends."""

    install_id: UUID
    position: int
    hash: bytes


Item = Entry | Checkpoint | Head


def signed_text(registry_uid: UUID, install_id: UUID, position: int, hash_: bytes, made_at: datetime) -> bytes:
    """What a checkpoint's signature is over; `registry_uid` names the database."""
    at = made_at.astimezone(UTC).isoformat(timespec="microseconds")
    return f"{FORMAT} checkpoint\n{registry_uid}\n{install_id}\n{position}\n{hash_.hex()}\n{at}\n".encode()


def chained(before: bytes, text: str) -> bytes:
    """The hash of an entry."""
    return hashlib.sha256(before + text.encode()).digest()


@dataclass(slots=True)
class Found:
    """What an audit holds that was checked."""

    steps: int = 0
    installations: int = 0
    checkpoints: int = 0
    unsigned: int = 0
    """Steps behind the last checkpoint of their chain: chained, and signed by nobody yet."""
    last_checkpoint_at: datetime | None = None


class AuditChecker:
    """Is told chain by chain what there is, each chain by position: an entry, its checkpoint, the head.

    `take` and `end` raise `AuditBroken` at the first thing that is wrong; nothing after that counts.
    """

    def __init__(self, registry_uid: UUID, verify: Verify) -> None:
        self.found = Found()
        self._registry_uid = registry_uid
        self._verify = verify
        self._install_id: UUID | None = None
        self._position = 0
        self._hash = BEFORE_THE_FIRST
        self._signed_to = 0
        self._has_head = False

    def take(self, item: Item) -> None:
        if item.install_id != self._install_id:
            self.end()
            self._install_id = item.install_id
            self._position, self._hash, self._signed_to, self._has_head = 0, BEFORE_THE_FIRST, 0, False
            self.found.installations += 1
        match item:
            case Entry():
                self._take_entry(item)
            case Checkpoint():
                self._take_checkpoint(item)
            case Head():
                self._agrees(item, f"the head of installation {item.install_id}")
                self._has_head = True

    def end(self) -> None:
        """Nothing more comes of the last chain."""
        if self._install_id is not None and not self._has_head:
            raise AuditBroken(f"The head of installation {self._install_id} is missing.")
        self.found.unsigned += self._position - self._signed_to

    def _take_entry(self, entry: Entry) -> None:
        due = self._position + 1
        where = f"of installation {entry.install_id}"
        if self._has_head or entry.position < due:
            raise AuditBroken(f"Row {entry.position} {where} stands where none may follow.")
        if entry.position > due:
            raise AuditBroken(f"Row {due} {where} is missing.")
        if chained(self._hash, entry.text) != entry.hash:
            follows = f"row {due - 1}" if due > 1 else "the beginning"
            raise AuditBroken(
                f"Row {due} {where} is broken: its hash does not follow from {follows} and what it says, so one of the "
                "two was changed."
            )
        said = _object(entry.text)
        if (said.get("install_id"), said.get("position")) != (str(entry.install_id), entry.position):
            raise AuditBroken(f"Row {due} {where} is broken: it says that it is another row.")
        self._position, self._hash = entry.position, entry.hash
        self.found.steps += 1

    def _take_checkpoint(self, checkpoint: Checkpoint) -> None:
        at = checkpoint.made_at.astimezone(UTC)
        what = f"the checkpoint of {at:%Y-%m-%d %H:%M:%S} UTC of installation {checkpoint.install_id}"
        text = signed_text(
            self._registry_uid, checkpoint.install_id, checkpoint.position, checkpoint.hash, checkpoint.made_at
        )
        wrong = self._verify(checkpoint.key_id, checkpoint.signature, text)
        if wrong is not None:
            raise AuditBroken(f"{what[0].upper()}{what[1:]} is forged: {wrong}.")
        self._agrees(checkpoint, what)
        self._signed_to = checkpoint.position
        self.found.checkpoints += 1
        self.found.last_checkpoint_at = max(self.found.last_checkpoint_at or at, at)

    def _agrees(self, claim: Checkpoint | Head, what: str) -> None:
        if claim.position > self._position:
            raise AuditBroken(
                f"Row {self._position + 1} of installation {claim.install_id} is missing: {what} goes up to row "
                f"{claim.position}."
            )
        if claim.position < self._position:
            raise AuditBroken(f"Row {claim.position + 1} of installation {claim.install_id} is beyond {what}.")
        if claim.hash != self._hash:
            raise AuditBroken(
                f"Row {claim.position} of installation {claim.install_id} was replaced: {what} has another hash."
            )


# The file of an export: one JSON object on each line.


def export_lines(registry_uid: UUID, items: Iterable[Item], *, exported_at: datetime) -> Iterator[str]:
    """The lines of an export, without their ends. The last one says how many there are: a torn file is noticed."""
    yield json.dumps({"format": FORMAT, "registry_uid": str(registry_uid), "exported_at": exported_at.isoformat()})
    count = 0
    for item in items:
        yield json.dumps(_line(item))
        count += 1
    yield json.dumps({"end": count})


def read_export(lines: Iterable[str]) -> tuple[UUID, Iterator[Item]]:
    """The database an export is of, and what it holds. Raises `AuditBroken`, also while the items are read."""
    numbered = enumerate(lines, start=1)
    head = _object(next(numbered, (0, ""))[1])
    if head.get("format") != FORMAT:
        raise AuditBroken(f"This is no export of the audit: its first line does not say {FORMAT!r}.")
    return _uuid(head.get("registry_uid"), 1), _items(numbered)


def _items(numbered: Iterator[tuple[int, str]]) -> Iterator[Item]:
    count = 0
    for number, line in numbered:
        said = _object(line)
        if "end" in said:
            if said["end"] != count:
                raise AuditBroken(f"Lines of this export are missing: it had {said['end']} items and holds {count}.")
            if next(numbered, None) is not None:
                raise AuditBroken(f"Line {number + 1} of this export stands behind its end.")
            return
        count += 1
        yield _item(said, number)
    raise AuditBroken(f"This export is torn: it stops after {count} items without its last line.")


def _line(item: Item) -> dict[str, Any]:
    said: dict[str, Any] = {"install_id": str(item.install_id), "position": item.position, "hash": item.hash.hex()}
    match item:
        case Entry():
            return {"entry": item.text, **said}
        case Checkpoint():
            at = item.made_at.astimezone(UTC).isoformat(timespec="microseconds")
            return {"checkpoint": at, "key_id": item.key_id, "signature": item.signature.hex(), **said}
        case Head():
            return {"head": True, **said}


def _item(said: dict[str, Any], number: int) -> Item:
    try:
        install_id, position, hash_ = UUID(said["install_id"]), int(said["position"]), bytes.fromhex(said["hash"])
        if "entry" in said:
            return Entry(install_id, position, str(said["entry"]), hash_)
        if "checkpoint" in said:
            made_at, signature = datetime.fromisoformat(said["checkpoint"]), bytes.fromhex(said["signature"])
            return Checkpoint(install_id, position, hash_, made_at.astimezone(UTC), str(said["key_id"]), signature)
        if "head" in said:
            return Head(install_id, position, hash_)
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        pass
    raise AuditBroken(f"Line {number} of this export is nothing of an audit.")


def _uuid(said: object, number: int) -> UUID:
    try:
        return UUID(str(said))
    except ValueError:
        raise AuditBroken(f"Line {number} of this export is nothing of an audit.") from None


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
