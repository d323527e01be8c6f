"""How a gateway ends: not ready, nothing new but safing, goodbye to the nodes, then the connections."""

import logging
import random
from dataclasses import dataclass
from functools import partial

import trio

from skygw.control.commands import CommandService
from skygw.control.direct_rpc import DirectRpc
from skygw.nodes.admission import NodeDoor
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.protocol.close_codes import CloseCode
from skygw.serving.listener import Listener

log = logging.getLogger("skygw.app")

GOODBYE = "draining: this gateway ends"
COME_BACK_S = (0.5, 5.0)
"""Spread, so that a fleet does not come back in one instant."""
FINISH_SHARE = 0.4
"""Of the time there is, what calls in flight may use to finish."""
CLOSE_SHARE = 0.7
"""…and by when the node sockets should be closed."""
FLUSH_S = 1.0
"""What the ledger may take to hear how the last commands stand."""
KILL_S = 1.5
"""What ending the last connections by force may take."""


@dataclass(frozen=True)
class Drained:
    """What is told to end."""

    door: NodeDoor
    rpc: DirectRpc
    commands: CommandService
    registry: ConnectionRegistry
    node_listener: Listener
    internal_listener: Listener


async def drain(what: Drained, *, within_s: float) -> None:
    """Ends everything within `within_s`, whatever a peer does. The internal listener answers until the nodes are gone,
    because a stop must get through until then.
    """
    began = trio.current_time()
    log.info("draining", extra={"sessions": len(what.registry), "calls": what.rpc.in_flight})
    what.door.drain()
    what.rpc.drain()
    what.commands.drain()
    what.node_listener.stop_accepting()
    for session in what.registry:
        wait_ms = int(1_000 * random.uniform(*COME_BACK_S))  # noqa: S311 - jitter
        session.announce_end(GOODBYE, reconnect_after_ms=wait_ms)
    with trio.move_on_at(began + within_s * FINISH_SHARE):
        await what.rpc.idle()
    for session in what.registry:
        session.end(CloseCode.DRAINING, GOODBYE)
    with trio.move_on_at(began + within_s * CLOSE_SHARE):
        await what.registry.empty()
    left_s = max(0.1, began + within_s - KILL_S - trio.current_time())
    async with trio.open_nursery() as nursery:
        for listener in (what.node_listener, what.internal_listener):
            nursery.start_soon(partial(listener.end_connections, within_s=left_s))
        with trio.move_on_after(min(FLUSH_S, left_s)) as patience:
            await what.commands.flush()
        if patience.cancelled_caught:
            log.warning("the ledger has not heard of the last steps of commands", extra={"within_s": FLUSH_S})
    log.info("drained")
