"""A node client against the fake gateway, its state in a fresh directory."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import UUID

import pytest
import trio

from skygw.client.config import NodeConfig, Token
from skygw.client.node import NodeClient
from skygw.ids import InstallId
from skygw.protocol.node_frames import NodeType
from tests.fakes.gateway import FakeGateway, fake_gateway


async def a_token() -> str | Token:
    return "token-1"


@pytest.fixture
async def gateway() -> AsyncIterator[FakeGateway]:
    async with fake_gateway() as made:
        yield made


MakeConfig = Callable[..., NodeConfig]


@pytest.fixture
def make_config(gateway: FakeGateway, tmp_path: Path) -> MakeConfig:
    def make(*, token: Callable[[], Awaitable[str | Token]] = a_token, link_loss_after_s: float = 300.0) -> NodeConfig:
        return NodeConfig(
            url=gateway.url,
            install_id=InstallId(UUID(int=42)),
            node_type=NodeType.TELESCOPE,
            software_version="1.0",
            token=token,
            state_dir=tmp_path / "state",
            link_loss_after_s=link_loss_after_s,
            disconnect_timeout_s=0.05,
        )

    return make


@asynccontextmanager
async def running(client: NodeClient) -> AsyncIterator[NodeClient]:
    """Runs the client until the block is left; what it raises fails the test."""
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        yield client
        nursery.cancel_scope.cancel()


Running = Callable[[NodeClient], AbstractAsyncContextManager[NodeClient]]
