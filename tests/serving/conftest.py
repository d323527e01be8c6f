"""What holds for every test of this room: an error in the log that nobody announced fails the test."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def expects_errors() -> None:
    """Asked for by a test in which our own fault is provoked."""


@pytest.fixture(autouse=True)
def no_unexpected_errors(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    if "expects_errors" not in request.fixturenames:
        errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
        assert errors == []
