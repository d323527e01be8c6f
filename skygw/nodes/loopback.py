"""A session with ourselves: lets `/readyz` send a direct request through everything a caller's would go through."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

import trio

from skygw.ids import BootId, CallId, Epoch, InstallId, InstanceUid, OutboxUid, RegistryUid
from skygw.nodes.ports import Binding, Claim
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.codec import BadFrame, encode, from_gateway
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import DirectRequest, GatewayFrame
from skygw.protocol.node_frames import DirectResponseEnd, DirectResponseStart, Hello, NodeType, Ping, Pong
from skygw.websocket import LinkClosed, Sent

LOOPBACK_ID = InstallId(UUID(int=0))
"""No installation of the hub has the nil uid (RFC 9562 §5.9)."""

ECHO = "loopback.echo"
_CAPACITY = 256


class LoopbackLink:
    """The link of a node that lives in this process and answers every direct request with its parameters."""

    def __init__(self) -> None:
        self._to_session, self._from_node = trio.open_memory_channel[str | bytes](_CAPACITY)

    async def receive(self) -> list[str | bytes]:
        return [await self.receive_one()]

    async def receive_one(self) -> str | bytes:
        try:
            return await self._from_node.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LinkClosed(None) from None

    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None:
        await trio.lowlevel.checkpoint()
        for message in messages:
            sent.whole += 1
            for item in from_gateway.decode(str(message)):
                if not isinstance(item, BadFrame):
                    self._answer(item.frame)

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 - nobody is there to read it
        await trio.lowlevel.checkpoint()
        self.abort()

    def abort(self) -> None:
        self._to_session.close()

    @property
    def last_received_at(self) -> float:
        return trio.current_time()

    def _answer(self, frame: GatewayFrame) -> None:
        match frame:
            case Ping():
                self._say(Pong(id=frame.id))
            case DirectRequest():
                self._echo(frame.id, frame.params.text.encode())
            case _:
                return

    def _echo(self, call_id: CallId, payload: bytes) -> None:
        self._say(DirectResponseStart(id=call_id, content_type="application/json", total_size=len(payload)))
        self._put(pack_chunk(Chunk(call_id, 0, payload)))
        digest = hashlib.sha256(payload).hexdigest()
        self._say(DirectResponseEnd(id=call_id, chunks=1, total_size=len(payload), sha256=digest))

    def _say(self, frame: Frame) -> None:
        self._put(encode(frame))

    def _put(self, message: str | bytes) -> None:
        try:
            self._to_session.send_nowait(message)
        except (trio.WouldBlock, trio.ClosedResourceError, trio.BrokenResourceError):
            self.abort()  # the check then fails, as it should


def loopback_hello() -> Hello:
    return Hello(
        install_id=LOOPBACK_ID,
        instance_uid=InstanceUid(LOOPBACK_ID),
        node_type=NodeType.OBSERVATORY,
        software_version="loopback",
        boot_id=BootId(LOOPBACK_ID),
        outbox_uid=OutboxUid(LOOPBACK_ID),
        last_fences={},
    )


def loopback_binding() -> Binding:
    """Controls nothing, so that no command is ever routed to it."""
    return Binding(
        install_id=LOOPBACK_ID,
        name="loopback",
        node_type=NodeType.OBSERVATORY,
        observatory_uid=LOOPBACK_ID,
        telescopes=frozenset(),
        devices=frozenset(),
    )


LOOPBACK_CLAIM = Claim(epoch=Epoch(0), registry_uid=RegistryUid(LOOPBACK_ID))
