"""The checks of this repository. `nox` alone runs what CI runs, in the environment nox itself lives in."""

import os
import secrets
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
def slowhttp(session: nox.Session) -> None:
    """`slowhttptest` (a Debian package) in its four modes, and how long others wait meanwhile; asserts no times."""
    session.run(sys.executable, "-m", "tests.slowhttp", *session.posargs)


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
def telemetry(session: nox.Session) -> None:
    """A hundred broken lines, and gateways and databases killed: every subscriber is told all, or what it was not.

    Each run draws other troubles and prints their seed; `SKYGW_TEST_SEED` draws the same ones again.
    """
    seed = os.environ.get("SKYGW_TEST_SEED", secrets.token_hex(4))
    session.log(f"SKYGW_TEST_SEED={seed}")
    session.run(
        *(sys.executable, "-m", "pytest", "-rP", "tests/fleet/telemetry", *session.posargs),
        env={**os.environ, "SKYGW_TEST_TELEMETRY": "long", "SKYGW_TEST_SEED": seed},
    )


@nox.session
def storm(session: nox.Session) -> None:
    """2,000 installations are cut at once and come back at once: how long it takes, and what the others notice."""
    session.run(sys.executable, "-m", "tests.fleet.storm", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """The long version of what strangers may do to a listener: floods, damaged input, many odd peers at once.

    `SKYGW_TEST_FUZZ_SEED` makes it another one.
    """
    long = {"SKYGW_TEST_FUZZ_ROUNDS": "4000", "SKYGW_TEST_FLOOD_MIB": "24"}
    paths = ["tests/serving/test_chaos.py", "tests/serving/test_mutated_input.py", "tests/hazards/test_floods.py"]
    session.run(
        sys.executable, "-m", "pytest", "-o", "timeout=1800", *paths, *session.posargs, env={**os.environ, **long}
    )


@nox.session
def uploads(session: nox.Session) -> None:
    """4 GiB come up without a rise of memory, and 50 kill -9 during an upload; `SKYGW_TEST_SEED` draws others."""
    long = {"SKYGW_TEST_UPLOAD_MIB": "4096", "SKYGW_TEST_UPLOAD_KILLS": "50"}
    paths = ["tests/routers/test_upload_process.py", "--timeout=1800"]
    session.run(sys.executable, "-m", "pytest", *paths, *session.posargs, env={**os.environ, **long})


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
