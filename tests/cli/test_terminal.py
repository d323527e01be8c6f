"""What is printed goes to the right stream, is plain when piped, and cannot be steered by a node."""

import io
import json
import os

import pytest

from skygw.cli.terminal import Terminal, shown

HOSTILE = "evil\x1b]0;title\x07\x9b31m\n\u202egnp.exe[red]:skull:"


class Screen(io.StringIO):
    """A stream that a person watches."""

    def isatty(self) -> bool:
        return True


def test_results_go_to_stdout_and_everything_else_to_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out=out, err=err)
    terminal.line("a result")
    terminal.note("a note")
    terminal.complaint("a complaint")
    with terminal.progress("working"):
        pass
    assert out.getvalue() == "a result\n"
    assert err.getvalue() == "a note\nskygw: a complaint\n"


@pytest.mark.parametrize("stream", [io.StringIO, Screen])
def test_a_node_cannot_steer_the_terminal_from_any_place(stream: type[io.StringIO]) -> None:
    out, err = stream(), stream()
    terminal = Terminal(out=out, err=err)
    terminal.line(HOSTILE)
    terminal.note(HOSTILE)
    terminal.complaint(HOSTILE)
    terminal.table([HOSTILE], [[HOSTILE]])
    terminal.json({HOSTILE: HOSTILE})
    with terminal.progress(HOSTILE) as progress:
        progress.update(HOSTILE)
    written = out.getvalue() + err.getvalue()
    assert not set(written) & {"\x07", "\x9b", "\u202e"}
    assert "\x1b]" not in written
    assert "evil\n" not in written
    assert "[red]" in written


def test_what_a_person_would_read_is_left_as_it_is() -> None:
    assert shown("Observatoř 天文台 🔭") == "Observatoř 天文台 🔭"
    assert shown(None) == ""
    assert shown(0) == "0"


def test_nothing_is_coloured_when_piped() -> None:
    out = io.StringIO()
    Terminal(out=out).table(["A"], [["b"]], styles=["red"])
    assert "\x1b" not in out.getvalue()


def test_a_person_gets_colours_unless_they_said_no(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    coloured, plain = Screen(), Screen()
    Terminal(err=coloured).complaint("no")
    monkeypatch.setenv("NO_COLOR", "1")
    Terminal(err=plain).complaint("no")
    assert "\x1b[31m" in coloured.getvalue()
    assert "\x1b" not in plain.getvalue()


def test_forcing_colours_does_not_reach_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    err = io.StringIO()
    Terminal(err=err).complaint("no")
    assert "\x1b" not in err.getvalue()


def test_long_cells_are_neither_cut_nor_wrapped_when_piped() -> None:
    out = io.StringIO()
    Terminal(out=out).table(["A", "B"], [["x" * 300, "y" * 300]])
    _, row = out.getvalue().splitlines()
    assert row.split() == ["x" * 300, "y" * 300]


def test_json_is_one_ascii_line() -> None:
    out = io.StringIO()
    Terminal(out=out).json({"name": "天\n"})
    assert out.getvalue().isascii()
    assert out.getvalue().count(os.linesep) == 1
    assert json.loads(out.getvalue()) == {"name": "天\n"}
