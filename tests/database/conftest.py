"""One embedded cluster for the session; a database of its own for a test that wants one."""

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import trio

from skygw.database.embedded import embedded_postgres
from skygw.database.pool import Database, open_loop_and_database
from tests.fakes.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture
async def database(postgres: PostgresServer) -> AsyncIterator[Database]:
    """The session's database as the gateway sees it; tests tell their rows apart by random uids."""
    async with open_loop_and_database(postgres.gateway_url) as opened:
        yield opened


@pytest.fixture(scope="session")
def stopped_cluster(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory in which a cluster was made and stopped."""
    data_dir = tmp_path_factory.mktemp("stopped")

    async def make() -> None:
        async with embedded_postgres(data_dir):
            pass

    trio.run(make)
    return data_dir


@pytest.fixture
def data_dir(stopped_cluster: Path, tmp_path: Path) -> Path:
    """A copy of it for one test to kill."""
    return Path(shutil.copytree(stopped_cluster, tmp_path / "data", symlinks=True))
