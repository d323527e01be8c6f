"""What a connection received and its app has not yet taken: bounded, and a disconnect always gets in."""

from collections import deque

import trio

from skygw.serving.asgi import Message

# One socket read is at most 64 KiB and one WebSocket message at most its own limit; a further message is
# taken only below these marks. So at most 32 messages wait, and 256 KiB of payload plus one message.
MAX_WAITING_MESSAGES = 32
MAX_WAITING_BYTES = 256 * 1024


class Inbox:
    """One writer (the connection's reader), one reader (the app)."""

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self._waiting_bytes = 0
        self._disconnect: Message | None = None
        self._arrival = trio.lowlevel.ParkingLot()
        self._room = trio.lowlevel.ParkingLot()

    @property
    def is_closed(self) -> bool:
        """The exchange is over: nothing more goes in, and what the app sends goes nowhere."""
        return self._disconnect is not None

    async def put(self, message: Message) -> None:
        """Wait for room. A disconnect never waits and frees whoever does; what comes after it is dropped."""
        if message["type"] in ("http.disconnect", "websocket.disconnect"):
            if self._disconnect is None:
                self._disconnect = message
            if self._room:
                self._room.unpark_all()
            if self._arrival:
                self._arrival.unpark_all()
            return
        while not self.is_closed and self._is_full():
            await self._room.park()
        if self.is_closed:
            return
        self._messages.append(message)
        self._waiting_bytes += _payload_bytes(message)
        if self._arrival:
            self._arrival.unpark()

    async def get(self) -> Message:
        """The next message; after the last, the disconnect as often as asked. Cancelling loses nothing. Others get to
        run unless a message is here already, of which there are never more than the bound.
        """
        if self._messages:
            await trio.lowlevel.checkpoint_if_cancelled()
        else:
            await trio.lowlevel.checkpoint()
        while not self._messages:
            if self._disconnect is not None:
                return self._disconnect
            await self._arrival.park()
        message = self._messages.popleft()
        self._waiting_bytes -= _payload_bytes(message)
        if self._room:
            self._room.unpark()
        return message

    def _is_full(self) -> bool:
        return len(self._messages) >= MAX_WAITING_MESSAGES or self._waiting_bytes >= MAX_WAITING_BYTES


def _payload_bytes(message: Message) -> int:
    return len(message.get("body") or message.get("bytes") or message.get("text") or b"")
