"""The checks of this repository. `nox` alone runs what CI runs, in the environment nox itself lives in."""

import os
import sys
from pathlib import Path

import nox

nox.options.sessions = ["style", "lint", "types", "imports", "tests"]
nox.options.default_venv_backend = "none"

BIN = Path(sys.executable).parent


@nox.session
def style(session: nox.Session) -> None:
    """Formatting, unchanged."""
    session.run(sys.executable, "-m", "ruff", "format", "--check", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff's rules."""
    session.run(sys.executable, "-m", "ruff", "check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Strict types over package and tests."""
    session.run(sys.executable, "-m", "mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """Who may import whom (docs/architecture.md)."""
    session.run(str(BIN / "lint-imports"), "--no-cache", external=True)


@nox.session
def tests(session: nox.Session) -> None:
    """The specification; arguments go to pytest."""
    session.run(sys.executable, "-m", "pytest", *session.posargs)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Ratios measured side by side in one run; prints a table, asserts no times."""
    session.run(sys.executable, "-m", "tests.benchmarks", *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """All of Autobahn's cases against both ends; the suite's own report stays in the session's folder."""
    report = Path(session.create_tmp(), "report")
    session.run(sys.executable, "-m", "tests.conformance", "--report", str(report), *session.posargs)


@nox.session
def fleet(session: nox.Session) -> None:
    """The long version of the fleet tests: 500 installations, a tenth of them killed, a link held for 30 s."""
    long = {"SKYGW_TEST_FLEET": "500", "SKYGW_TEST_HOLD_S": "30"}
    session.run(sys.executable, "-m", "pytest", "tests/fleet", *session.posargs, env={**os.environ, **long})


@nox.session
def line(session: nox.Session) -> None:
    """Half an hour of stops behind 1 Mbit/s, 300 ms and eight uploads; prints how long they took."""
    session.run(
        *(sys.executable, "-m", "pytest", "tests/fleet/test_slow_line.py", "--timeout=2400", *session.posargs),
        env={**os.environ, "SKYGW_TEST_LINE_S": "1800"},
    )


@nox.session(venv_backend="venv")
def newest(session: nox.Session) -> None:
    """The tests with the newest versions of everything the lower bounds allow."""
    session.install("--upgrade", ".[dev]")
    session.run("python", "-m", "pytest", *session.posargs)
