"""Both directions of a connection in memory, so that a WebSocket's time can be run on a clock of its own."""

from math import inf

import trio

from skygw.websocket import ConnectionLost


class MemoryTransport:
    """A `Transport` whose peer is the test: it says bytes with `arrives`, and finds in `sent` what was sent."""

    def __init__(self) -> None:
        self._to_here, self._from_peer = trio.open_memory_channel[bytes](inf)  # the test bounds what it says
        self.sent = b""
        self.is_aborted = False
        self.handed_over = self.begun = 0

    def arrives(self, data: bytes) -> None:
        self._to_here.send_nowait(data)

    async def receive(self) -> bytes:
        try:
            return await self._from_peer.receive()
        except trio.EndOfChannel:
            return b""
        except trio.ClosedResourceError as error:
            raise ConnectionLost("closed here") from error

    async def send(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_aborted:
            raise ConnectionLost("closed here")
        self.sent += data
        self.begun = self.handed_over = len(self.sent)

    async def send_end(self) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        self._from_peer.close()

    def abort(self) -> None:
        self.is_aborted = True
        self.close()
