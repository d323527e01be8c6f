"""PostgreSQL remembers uploads as every memory of them must."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from skygw.database.pool import open_loop_and_database
from skygw.database.uploads import PgUploads
from skygw.ids import InstallId
from tests.fakes.postgres import PostgresServer
from tests.observing.upload_store_contract import UploadStoreContract


@pytest.fixture(scope="module")
def gateway_url(postgres: PostgresServer) -> str:
    """A database of its own: what expires here is everybody's."""
    return postgres.new_database()[1]


class TestPgUploads(UploadStoreContract):
    @pytest.fixture
    async def store(self, gateway_url: str) -> AsyncIterator[PgUploads]:
        async with open_loop_and_database(gateway_url) as database:
            async with database.connection() as connection:
                await connection.execute("DELETE FROM skygw.upload")
            yield PgUploads(database)

    @pytest.fixture
    def install_id(self) -> InstallId:
        return InstallId(uuid4())
