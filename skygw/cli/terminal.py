"""The one place that prints: results to stdout, progress and complaints to stderr, nothing a node could steer.

Whatever comes from elsewhere is shown through `shown`; there is no markup in what is printed, no colour unless a person
is watching, and with `--json` stdout carries JSON alone.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import IO, Annotated, Any, TextIO

from cyclopts import Parameter
from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

from skygw.observability.plain_text import escaped

AsJson = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON on stdout, for programs")]
"""The option every command has."""

_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")

PIPED_WIDTH = 10_000
"""Columns of a pipe: nothing there is cut or wrapped."""


class ExitCode(IntEnum):
    """How a command ends."""

    OK = 0
    FAILED = 1
    """What was asked for did not happen."""
    USAGE = 2
    """The arguments or settings are wrong; nothing was tried."""
    REFUSED = 3
    """A node said no, and did nothing."""
    NOT_SENT = 4
    """Nothing has reached a node, and nothing will."""
    UNKNOWN = 5
    """It may have been done or not: ask, and do not send it again."""
    CANCELED = 6
    """It was begun or waited for, and taken back."""
    GOES_ON = 7
    """It has no end yet; only the waiting has."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as shells have it."""


class CommandFailed(Exception):
    """What was asked for did not happen. `problem` has the members of an HTTP problem."""

    def __init__(
        self, message: str, problem: Mapping[str, Any] | None = None, *, exit_code: ExitCode = ExitCode.FAILED
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.problem: dict[str, Any] = {"code": "failed", **(problem or {})}


def shown(value: object) -> str:
    """`value` as text that is safe on a terminal; empty for None."""
    return "" if value is None else escaped(str(value))


class Terminal:
    """Stdout and stderr of one command. The streams are looked up at the start, not kept by anybody else."""

    def __init__(self, *, as_json: bool = False, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.as_json = as_json
        self._out = _console(out or sys.stdout)
        self._err = _console(err or sys.stderr)

    @property
    def out_is_a_terminal(self) -> bool:
        return self._out.is_terminal

    def line(self, text: str) -> None:
        """One line of result."""
        self._out.print(Text(shown(text)), soft_wrap=True)

    @property
    def can_be_drawn_on(self) -> bool:
        """Whether a person looks at stdout, on a terminal whose lines can be replaced."""
        return self._out.is_terminal and not self._out.is_dumb_terminal

    @property
    def has_colour(self) -> bool:
        return self._out.color_system is not None

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of stdout, as they are now."""
        return self._out.width, self._out.height

    @contextmanager
    def screen(self) -> Iterator["Screen"]:
        """Lines at the end of stdout that change in place; the last ones stay."""
        screen = Screen(self._out.file)
        try:
            yield screen
        finally:
            screen.leave()

    def json_text(self, text: str) -> None:
        """One JSON document of somebody else's on one line, the same value in ASCII."""
        self._out.file.write(_NOT_PLAIN.sub(_as_json_escape, text) + "\n")
        self._out.file.flush()

    def json(self, value: object) -> None:
        """One JSON document on one line. ASCII, so that nothing in it can steer a terminal either."""
        self._out.file.write(json.dumps(value, default=str) + "\n")
        self._out.file.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, styles: Sequence[str] = ()) -> None:
        """Rows under headings. `styles` is one style per row, if any; colours never carry meaning alone."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(Text(shown(column)), overflow="fold")
        for number, row in enumerate(rows):
            style = styles[number] if styles else None
            table.add_row(*(Text(shown(cell)) for cell in row), style=style)
        self._out.print(table)

    def note(self, text: str) -> None:
        """A sentence about what is going on; not a result."""
        self._err.print(Text(shown(text)), soft_wrap=True)

    def complaint(self, text: str) -> None:
        """A sentence about what is wrong."""
        self._err.print(Text(f"skygw: {shown(text)}", style="red"), soft_wrap=True)

    @contextmanager
    def progress(self, text: str) -> Iterator["Progress"]:
        """Shows that something that may take a second is under way: a spinner for a person, silence for a pipe."""
        with Status(Text(shown(text)), console=self._err) as status:
            yield Progress(status)


class Screen:
    """What is shown is replaced by what is shown next. Lines are shorter than the terminal is wide, and few."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._shown: list[str] = []

    def show(self, lines: Sequence[str]) -> None:
        """Text that is safe on a terminal, or styled by this program."""
        if list(lines) == self._shown:
            return
        up = f"\x1b[{len(self._shown)}A" if self._shown else "\x1b[?25l"
        self._out.write(up + "".join(f"\r{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._out.flush()
        self._shown = list(lines)

    def leave(self) -> None:
        """The cursor is seen again, below what was shown last."""
        if self._shown:
            self._out.write("\x1b[?25h")
            self._out.flush()


class Progress:
    """What is under way, in words that can change."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def update(self, text: str) -> None:
        self._status.update(Text(shown(text)))


def _as_json_escape(found: re.Match[str]) -> str:
    """Control characters stand between tokens only, where JSON allows some; all others stand in strings."""
    units = found[0].encode("utf-16-be", "surrogatepass")
    if len(units) == 2 and units < b"\x00 ":
        return " "
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _console(stream: TextIO) -> Console:
    watched = stream.isatty()
    colourless = not watched or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=stream,
        force_terminal=watched,
        color_system=None if colourless else "auto",
        width=None if watched else PIPED_WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )
