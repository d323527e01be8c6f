"""An export of the audit is whole, or the first thing wrong with it is said in one sentence."""

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from skygw.control.audit import (
    BEFORE_THE_FIRST,
    AuditBroken,
    AuditChecker,
    Checkpoint,
    Entry,
    Found,
    Head,
    Item,
    chained,
    export_lines,
    read_export,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATABASE, INSTALLATION = uuid4(), uuid4()


def a_chain(install_id: UUID, *, steps: int, signed_at: int) -> list[Item]:
    items: list[Item] = []
    last = BEFORE_THE_FIRST
    for position in range(1, steps + 1):
        text = f'{{"install_id" : "{install_id}", "position" : {position}, "state" : "running", "detail" : "Höhe"}}'
        last = chained(last, text)
        items.append(Entry(install_id, position, text, last))
        if position == signed_at:
            items.append(Checkpoint(install_id, position, last, NOW, "k", b"good"))
    return [*items, Head(install_id, steps, last)]


def only_good(key_id: str, signature: bytes, text: bytes) -> str | None:
    return None if signature == b"good" else "its signature is bad"


def check(lines: list[str]) -> Found:
    registry_uid, items = read_export(iter(lines))
    checker = AuditChecker(registry_uid, only_good)
    for item in items:
        checker.take(item)
    checker.end()
    return checker.found


def an_export() -> list[str]:
    return list(export_lines(DATABASE, a_chain(INSTALLATION, steps=4, signed_at=3), exported_at=NOW))


def test_what_was_exported_is_whole() -> None:
    chains = a_chain(INSTALLATION, steps=4, signed_at=3) + a_chain(uuid4(), steps=2, signed_at=2)
    found = check(list(export_lines(DATABASE, chains, exported_at=NOW)))
    assert (found.steps, found.installations, found.checkpoints, found.unsigned) == (6, 2, 2, 1)
    assert found.last_checkpoint_at == NOW


DAMAGE: dict[str, tuple[Callable[[list[str]], list[str]], str]] = {
    "it is torn": (lambda lines: lines[:-1], "torn"),
    "a line is gone": (lambda lines: lines[:2] + lines[3:], "Row 2"),
    "a last line is gone": (lambda lines: [*lines[:-2], lines[-1]], "Lines of this export are missing"),
    "something stands behind its end": (lambda lines: [*lines, lines[1]], "behind its end"),
    "a line is none": (lambda lines: [*lines[:2], "{", *lines[3:]], "Line 3"),
    "a number is none": (lambda lines: [lines[0], lines[1].replace('"position": 1,', '"position": [],')], "Line 2"),
    "it is something else": (lambda _: ["hello"], "no export"),
    "a signature is forged": (lambda lines: [line.replace(b"good".hex(), "00") for line in lines], "is forged"),
    "the end says less": (lambda lines: [*lines[:-1], lines[-1].replace("6", "5")], "Lines of this export are missing"),
    "it is empty": (lambda _: [], "no export"),
    "its head names no database": (lambda _: ['{"format": "skygw-audit-1"}'], "Line 1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_export_is_refused_with_a_sentence(damage: str) -> None:
    harm, said = DAMAGE[damage]
    with pytest.raises(AuditBroken, match=said):
        check(harm(an_export()))
