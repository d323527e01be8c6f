"""One PostgreSQL for all tests of the whole gateway, and none of them may leave an error in the log unannounced."""

import logging
from collections.abc import Iterator

import pytest

from tests.fakes.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(autouse=True)
def no_unexpected_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a peer does, and whatever the database does, is not an error of ours; nor is there a traceback."""
    caplog.set_level(logging.INFO)
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.levelno >= logging.ERROR] == []
    assert [record.getMessage() for record in records if record.exc_info] == []
