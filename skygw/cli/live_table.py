"""What `skygw watch` shows of a retained stream: a line per resource, its age, and what is wrong. No I/O, no clock."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.cells import cell_len, set_cell_size

from skygw.cli.terminal import shown
from skygw.client.stream_items import Away, Changed, Gap, Item, Live, Stale, Unreadable

MAX_LABEL = 36
"""A uid."""
LEAST_LABEL = 8
AGE_WIDTH = 7
MOST_TELLING = ("state", "status", "phase", "connected", "holder")
"""Members that are shown first where somebody has not said what to show."""

BOLD, RED, YELLOW, PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[33m", "\x1b[0m"


@dataclass(slots=True)
class _Row:
    label: str
    data: Mapping[str, Any]
    heard_at: float | None
    stale: str | None


class LiveTable:
    """The latest values of one stream. `fields` become columns; otherwise what is most telling is shown."""

    def __init__(self, stream: str, *, fields: Sequence[str] | None = None) -> None:
        self._stream = stream
        self._fields = fields
        self._rows: dict[str, _Row] = {}
        self._state = "connecting"
        self._away: Away | None = None
        self._away_at = 0.0
        self._gaps = 0
        self._passed_over = 0

    def take(self, item: Item, *, now: float) -> None:
        """The next item, at that time of trio's clock."""
        if isinstance(item, Away):
            self._away, self._away_at = item, now
            return
        if self._away is not None or self._state == "connecting":
            self._away, self._state = None, "replaying"
        if isinstance(item, Changed):
            self._rows[str(item.uid or item.install_id)] = _row(item)
        elif isinstance(item, Stale):
            known = self._rows.get(str(item.uid))
            if known is not None:
                known.stale = item.reason
        elif isinstance(item, Live):
            self._state = "live"
        elif isinstance(item, Gap):
            if item.reason == "conflated":
                self._passed_over += item.count or 0
            else:
                self._gaps += 1

    def lines(self, *, now: float, width: int, height: int, colour: bool = False) -> list[str]:
        """At most `height` lines, each at most `width` columns wide."""
        rows = sorted(self._rows.values(), key=lambda row: row.label)
        room = max(1, height - 2)
        hidden = 0
        if len(rows) > room:
            hidden = len(rows) - room + 1
            rows = rows[: room - 1]
        cells = [self._cells(row, now=now) for row in rows]
        titles = ("RESOURCE", "AGE", "STALE", *(map(shown, self._fields) if self._fields is not None else ("DETAILS",)))
        widths = _widths([titles, *cells], width)
        painted = [
            _painted(_cut(self._header(now), width), RED if self._away is not None else BOLD, colour=colour),
            _painted(_joined(titles, widths, width), BOLD, colour=colour),
            *(
                _painted(_joined(cell, widths, width), YELLOW if row.stale else "", colour=colour)
                for row, cell in zip(rows, cells, strict=True)
            ),
        ]
        if hidden:
            painted.append(_cut(f"… and {hidden} more", width))
        return painted[:height]

    def _header(self, now: float) -> str:
        state = self._state
        if self._away is not None:
            again_in_s = max(0.0, self._away.again_in_s - (now - self._away_at))
            state = f"away, again in {_age(again_in_s)}"
        stale = sum(1 for row in self._rows.values() if row.stale)
        told = [self._stream, state, f"{len(self._rows)} resources", f"{stale} stale", f"{self._gaps} gaps"]
        if self._passed_over:
            told.append(f"{self._passed_over} passed over")
        if self._away is not None:
            told.append(shown(self._away.reason))
        return " · ".join(told)

    def _cells(self, row: _Row, *, now: float) -> tuple[str, ...]:
        age = "?" if row.heard_at is None else _age(now - row.heard_at)
        stale = "" if row.stale is None else shown(row.stale)
        if self._fields is None:
            return row.label, age, stale, telling(row.data)
        return row.label, age, stale, *(_value(row.data.get(name)) for name in self._fields)


def telling(data: Mapping[str, Any]) -> str:
    """The plain members of a payload, the most telling first, safe on a terminal. What names it is left out."""
    plain = {
        name: value
        for name, value in data.items()
        if isinstance(value, str | int | float) and not name.lower().endswith("uid") and name != "name"
    }
    order = [name for name in MOST_TELLING if name in plain] + [name for name in plain if name not in MOST_TELLING]
    return " ".join(f"{shown(name)}={_value(plain[name])}" for name in order)


def _row(item: Changed) -> _Row:
    try:
        data = item.data
    except Unreadable as error:
        data = {"unreadable": str(error)}
    name = data.get("name")
    label = name if isinstance(name, str) and name else str(item.uid or item.install_id)
    return _Row(shown(label), data, item.heard_at, item.stale)


def _value(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.6g}"
        case str() | int():
            return shown(value)
    return shown(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _age(seconds: float) -> str:
    seconds = max(0.0, seconds)
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def _widths(rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """As wide as what stands in it; a resource leaves most of a narrow terminal to what is said of it."""
    widest = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    widest[0] = min(widest[0], MAX_LABEL, max(LEAST_LABEL, width * 2 // 5))
    widest[1] = max(widest[1], AGE_WIDTH)
    return widest


def _joined(cells: Sequence[str], widths: Sequence[int], width: int) -> str:
    fitted = [set_cell_size(_cut(cell, size), size) for cell, size in zip(cells, widths, strict=True)]
    return _cut("  ".join(fitted).rstrip(), width)


def _cut(text: str, width: int) -> str:
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)).rstrip() + "…"


def _painted(line: str, style: str, *, colour: bool) -> str:
    return f"{style}{line}{PLAIN}" if colour and style else line
