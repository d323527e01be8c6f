"""What `/readyz` looks at: a check says what is wrong, or nothing."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import trio

from skygw.control.direct_rpc import DirectOrder, DirectRpc
from skygw.database.pool import Database
from skygw.errors import GatewayError, RoutingUnavailable
from skygw.ids import RequestId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.loopback import ECHO, LOOPBACK_ID
from skygw.protocol.json_text import Opaque


def not_draining(draining: trio.Event) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        await trio.lowlevel.checkpoint()
        return "draining" if draining.is_set() else None

    return check


def loopback_check(rpc: DirectRpc) -> Callable[[], Awaitable[str | None]]:
    """A round trip through the registry, a session, its outbox and the codec, as a caller's would be."""

    async def check() -> str | None:
        nonce = Opaque.of({"nonce": uuid4().hex})
        order = DirectOrder(
            install_id=LOOPBACK_ID,
            operation=ECHO,
            params=nonce,
            timeout_s=1.0,
            service="readyz",
            request_id=RequestId("readyz"),
        )
        try:
            async with rpc.call(order) as answer:
                echoed = b"".join([piece async for piece in answer])
        except GatewayError as error:
            return error.message
        return None if echoed == nonce.text.encode() else "the loop-back session answered something else"

    return check


def registry_check(registry: ConnectionRegistry) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        await trio.lowlevel.checkpoint()
        return None if registry.current(LOOPBACK_ID) is not None else "the loop-back session is not registered"

    return check


def database_check(database: Database) -> Callable[[], Awaitable[str | None]]:
    async def check() -> str | None:
        try:
            await database.ping()
        except RoutingUnavailable as error:
            return error.message
        return None

    return check
