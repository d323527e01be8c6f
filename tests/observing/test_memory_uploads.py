"""The fake does what the real one must."""

from uuid import uuid4

import pytest

from skygw.ids import InstallId
from tests.fakes.memory_uploads import MemoryUploads
from tests.observing.upload_store_contract import UploadStoreContract


class TestMemoryUploads(UploadStoreContract):
    @pytest.fixture
    def store(self) -> MemoryUploads:
        return MemoryUploads()

    @pytest.fixture
    def install_id(self) -> InstallId:
        return InstallId(uuid4())
