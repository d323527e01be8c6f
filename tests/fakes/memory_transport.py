"""A connection in memory below a WebSocket: what came is kept, and the peer takes as much as it is told to."""

from dataclasses import dataclass, field

import trio

from skygw.websocket import ConnectionLost, NotReading, Rhythm, WebSocket
from skygw.websocket.frames import TEXT, FrameReader, frame

MASK = b"\x01\x02\x03\x04"


def text(message: str) -> bytes:
    """A text message as a client sends it."""
    return frame(TEXT, message.encode(), MASK)


def opened(transport: "MemoryTransport", **settings: object) -> WebSocket:
    """The gateway's end of a WebSocket, with other settings where given."""
    given = {"is_client": False, "max_message_bytes": 1 << 20, "rhythm": Rhythm(), **settings}
    return WebSocket(transport, **given)  # type: ignore[arg-type]


@dataclass
class MemoryTransport:
    """The peer's bytes come from `say`; ours are kept. `room` bytes are taken at once, and then the peer stalls."""

    room: float = float("inf")
    patience_s: float = 10.0
    handed_over: int = 0
    begun: int = 0
    writes: list[bytes] = field(default_factory=list)
    aborted: bool = False
    reads: int = 0

    def __post_init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[bytes](1_000)
        self._gone = trio.Event()

    def say(self, data: bytes) -> None:
        self._in.send_nowait(data)

    def hang_up(self) -> None:
        self._in.close()

    async def receive(self) -> bytes:
        self.reads += 1
        try:
            return await self._out.receive()
        except trio.EndOfChannel:
            return b""
        except trio.ClosedResourceError:
            raise ConnectionLost("aborted") from None

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.aborted:
            raise ConnectionLost("aborted")
        taken = int(min(len(data), self.room))
        self.room -= taken
        self.writes.append(data[:taken])
        self.handed_over = self.begun = self.handed_over + taken
        if taken < len(data):
            with trio.move_on_after(self.patience_s):
                await self._gone.wait()
                raise ConnectionLost("aborted")
            raise NotReading(f"took {taken} of {len(data)} bytes in {self.patience_s:.1f} s")

    async def send_end(self) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self.aborted = True
        self._gone.set()
        self._out.close()

    @property
    def said(self) -> list[object]:
        """The frames that were written to the peer."""
        return list(FrameReader(masked=False, max_message_bytes=1 << 20).feed(b"".join(self.writes)))
