"""Node sessions of ours that are sent as much as they take: `NodeSession`, outbox and writer on the serving stack.

Everything is the gateway's but the ports, which are in memory, and who puts the frames: a loop in this process keeps
every session supplied with direct requests that nobody waits for. A node says who it is by its path.
"""

import sys
import time
from typing import Any, cast
from uuid import UUID, uuid4

import trio
from quart_trio import QuartTrio

from skygw import __version__
from skygw.ids import CallId, InstallId
from skygw.nodes.admission import Arrival, NodeDoor
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Binding, SessionPorts
from skygw.nodes.session import NodeSession
from skygw.observability.metrics import Metrics
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import from_gateway, from_node
from skygw.protocol.gateway_frames import DirectRequest
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import NodeType
from skygw.protocol.schemas import SUBPROTOCOL
from skygw.protocol.streams import RETAINED_STREAMS, StreamName
from skygw.resources import UNWANTED_REASONS
from skygw.routers.quart_socket import use_direct_sockets
from skygw.routers.ws import current_websocket
from skygw.serving.config import ListenerConfig
from skygw.serving.handle import EXTENSION
from skygw.serving.listener import Listener
from skygw.serving.metrics import NoMetrics
from skygw.telemetry.following import NodeStreams
from tests.benchmarks.servers.listening import say_ready
from tests.fakes.rooms import Gateway

QUEUED_BYTES = 64 * 1024
"""What each session is kept supplied with."""

PAUSE_S = 0.001
PARAMS = Opaque.of({"deviceUid": str(uuid4()), "note": "x" * 100})


def make_app(door: NodeDoor) -> QuartTrio:
    app = QuartTrio(__name__, static_folder=None)
    use_direct_sockets(app)

    @app.websocket("/node/<uuid:install_id>")
    async def node(install_id: UUID) -> None:
        socket = current_websocket()
        scope = cast("dict[str, Any]", socket.scope)
        await socket.accept(subprotocol=SUBPROTOCOL)
        binding = Binding(
            install_id=InstallId(install_id),
            name="Benchmark",
            node_type=NodeType.TELESCOPE,
            observatory_uid=uuid4(),
            telescopes=frozenset(),
            devices=frozenset(),
        )
        link = scope["extensions"][EXTENSION].websocket
        assert link is not None, "the node left while it was answered"
        await door.serve(Arrival(link=link, binding=binding, token_expires_at=time.time() + 3_600, address="127.0.0.1"))

    return app


def request(session: NodeSession) -> DirectRequest:
    return DirectRequest(
        id=CallId(uuid4()),
        operation="device.read",
        params=PARAMS,
        deadline_ms=30_000,
        credit=1_048_576,
        epoch=session.epoch,
        t_ms=session.t_ms(),
    )


async def supply(rooms: Gateway, sessions: int) -> None:
    """Begins when all of them are connected, and again when they have come back."""
    while True:
        if len(rooms.registry) < sessions:
            await trio.sleep(PAUSE_S)
            continue
        supplied = False
        for session in rooms.registry:
            if session.ending is None and session.queued_bytes(Lane.DATA) < QUEUED_BYTES:
                session.put(Lane.DATA, request(session))
                supplied = True
        await trio.sleep(0 if supplied else PAUSE_S)


async def main() -> None:
    """The argument is how many sessions there will be."""
    config = ListenerConfig(name="node", host="127.0.0.1", port=0, max_connections_per_address=None)
    listener = Listener.bind(config, metrics=NoMetrics())
    metrics = Metrics(
        version=__version__,
        frame_kinds=[*from_node.models, *from_gateway.models],
        close_codes=[int(code) for code in CloseCode],
        streams=list(StreamName),
        retained_streams=sorted(RETAINED_STREAMS),
        snapshot_refusals=UNWANTED_REASONS,
    )
    async with trio.open_nursery() as nursery:
        rooms = Gateway(nursery)
        ports = SessionPorts(
            reports=rooms.reports,
            tokens=rooms.tokens,
            snapshots=rooms.snapshots,
            streams=NodeStreams(rooms.hub),
            results=rooms.commands,
            graph=rooms.graph_news,
            metrics=metrics,
        )
        door = NodeDoor(
            registry=rooms.registry, epochs=rooms.epochs, rules=rooms.rules, ports=ports, witnesses=[rooms.commands]
        )
        await nursery.start(listener.run, make_app(door))
        nursery.start_soon(supply, rooms, int(sys.argv[1]))
        say_ready(listener.address[1])


if __name__ == "__main__":
    trio.run(main)
