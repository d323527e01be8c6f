"""The inbox between a connection's reader and its app."""

import pytest
import trio
import trio.testing

from skygw.serving.asgi import Message
from skygw.serving.inbox import MAX_WAITING_BYTES, MAX_WAITING_MESSAGES, Inbox

GONE: Message = {"type": "websocket.disconnect", "code": 4242}


def text(words: str) -> Message:
    return {"type": "websocket.receive", "text": words, "bytes": None}


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (text(""), MAX_WAITING_MESSAGES),
        ({"type": "http.request", "body": b"x" * 65536, "more_body": True}, MAX_WAITING_BYTES // 65536),
    ],
    ids=["many messages", "many bytes"],
)
async def test_it_holds_so_much_and_then_makes_the_reader_wait(message: Message, count: int) -> None:
    inbox = Inbox()
    for _ in range(count):
        await inbox.put(message)
    with trio.move_on_after(0) as full:
        await inbox.put(message)
    assert full.cancelled_caught
    assert await inbox.get() == message
    await inbox.put(message)


async def test_a_disconnect_passes_a_full_inbox_and_frees_the_waiting_reader() -> None:
    inbox = Inbox()
    for number in range(MAX_WAITING_MESSAGES):
        await inbox.put(text(str(number)))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(inbox.put, text("dropped"))
        await trio.testing.wait_all_tasks_blocked()
        await inbox.put(GONE)
    taken = [await inbox.get() for _ in range(MAX_WAITING_MESSAGES + 2)]
    assert taken[:2] == [text("0"), text("1")]
    assert taken[-2:] == [GONE, GONE]


async def test_the_first_disconnect_wins() -> None:
    inbox = Inbox()
    await inbox.put(GONE)
    await inbox.put({"type": "websocket.disconnect", "code": 1006})
    assert await inbox.get() == GONE


async def test_a_cancelled_wait_loses_nothing() -> None:
    inbox = Inbox()
    with trio.move_on_after(0):
        await inbox.get()
    await inbox.put(text("kept"))
    assert await inbox.get() == text("kept")
