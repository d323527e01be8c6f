"""What one message costs each codec we could stand on: `python -m tests.benchmarks.frame_codecs`.

A 200-byte text from a client is read and answered with the same text, in the server's role; nothing else is done.
"""

import time
from collections.abc import Callable
from statistics import median
from unittest import mock

from websockets.frames import Frame
from websockets.protocol import Protocol, Side, State
from websockets.utils import apply_mask as mask_in_python
from wsproto.connection import Connection, ConnectionType
from wsproto.events import TextMessage

import skygw.websocket.frames as ours
from skygw.websocket.frames import TEXT, FrameReader, frame, message_frame

TEXT_BYTES = 200
MESSAGES = 20_000
ROUNDS = 7
WIRE = frame(TEXT, b"x" * TEXT_BYTES, b"\x01\x02\x03\x04")


def with_wsproto() -> Callable[[], bytes]:
    connection = Connection(ConnectionType.SERVER)

    def echo() -> bytes:
        connection.receive_data(WIRE)
        (event,) = connection.events()
        assert isinstance(event, TextMessage)
        return connection.send(TextMessage(data=event.data))

    return echo


def with_websockets() -> Callable[[], bytes]:
    protocol = Protocol(Side.SERVER, state=State.OPEN)

    def echo() -> bytes:
        protocol.receive_data(WIRE)
        (received,) = protocol.events_received()
        assert isinstance(received, Frame)
        protocol.send_text(received.data)
        return b"".join(protocol.data_to_send())

    return echo


def with_ours() -> Callable[[], bytes]:
    reader = FrameReader(masked=True, max_message_bytes=1 << 20)

    def echo() -> bytes:
        (message,) = reader.feed(WIRE)
        assert isinstance(message, str)
        return message_frame(message)

    return echo


in_c = ours.apply_mask  # type: ignore[attr-defined] # what this compares

CANDIDATES = {
    "wsproto": (with_wsproto, in_c),
    "websockets, sans-IO": (with_websockets, in_c),
    "ours, masking in C": (with_ours, in_c),
    "ours, masking in Python": (with_ours, mask_in_python),
}


def main() -> None:
    """Rounds in turn, so that a slow moment of the machine slows all of them."""
    echoes = {name: make() for name, (make, _) in CANDIDATES.items()}
    answers = {echo() for echo in echoes.values()}
    assert len(answers) == 1, answers
    taken: dict[str, list[float]] = {name: [] for name in echoes}
    for _ in range(ROUNDS):
        for name, echo in echoes.items():
            with mock.patch.object(ours, "apply_mask", CANDIDATES[name][1]):
                began = time.process_time()
                for _ in range(MESSAGES):
                    echo()
                taken[name].append((time.process_time() - began) / MESSAGES * 1e6)
    for name, times in taken.items():
        print(f"{name:26} {median(times):6.2f} µs ({min(times):.2f}–{max(times):.2f})")  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
