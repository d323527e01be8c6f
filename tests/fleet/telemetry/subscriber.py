"""Subscribers that owe nothing to our own client: a bare WebSocket, a bare HTTP answer, and what they write down."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from random import Random
from urllib.parse import urlencode

import httpx
import trio
from trio_websocket import ConnectionClosed, HandshakeError, WebSocketConnection, wrap_client_stream

from skygw.sim.fault_proxy import FaultProxy
from tests.fleet.telemetry.hub import Hub
from tests.fleet.telemetry.story import Message, Story

SUBPROTOCOL = "skynet.internal.v1"
BACK_WITHIN_S = 0.4
HANDSHAKE_S = 4.0
SILENT_S = 25.0
"""A subscription says something every ten seconds: who hears nothing for longer has lost its link."""

BURST = 100
PAUSE_S = (0.5, 3.0)
"""Of a slow reader: so many messages, then so long nothing."""


class LinkLost(Exception):
    """It ended, however."""


class Subscriber:
    """Follows its stories on one line, and comes back for ever. One of them may be told in each HTTP answer."""

    def __init__(self, name: str, hub: Hub, stories: Sequence[Story], *, chance: Random, is_slow: bool = False) -> None:
        self.name = name
        self.stories = stories
        self.line = FaultProxy("127.0.0.1", hub.internal_port)
        self._hub = hub
        self._chance = chance
        self._is_slow = is_slow
        self._port = 0
        self.troubles: list[str] = []
        """What no subscriber should ever hear."""

    def hurry(self) -> None:
        """Reads as fast as it can from now on."""
        self._is_slow = False

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            self._port = await nursery.start(self.line.run)
            await self._come_back_for_ever()

    async def _come_back_for_ever(self) -> None:
        while True:
            try:
                await self._sit()
            except* (LinkLost, ConnectionClosed, HandshakeError, OSError, trio.BrokenResourceError):
                pass
            await trio.sleep(self._chance.uniform(0.05, BACK_WITHIN_S))

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self._hub.gateway.service_token(self.name)}"}

    async def _rest(self, heard: int) -> None:
        if self._is_slow and heard % BURST == 0:
            await trio.sleep(self._chance.uniform(*PAUSE_S))

    async def _sit(self) -> None:
        stream = await trio.open_tcp_stream("127.0.0.1", self._port)
        try:
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(HANDSHAKE_S) as patience:
                    socket = await wrap_client_stream(
                        nursery,
                        stream,
                        "127.0.0.1",
                        "/internal/ws/stream",
                        subprotocols=[SUBPROTOCOL],
                        extra_headers=[(name.encode(), value.encode()) for name, value in self._headers.items()],
                        message_queue_size=1,
                    )
                if patience.cancelled_caught:
                    raise LinkLost
                await self._follow(socket)
        finally:
            stream.socket.close()

    async def _follow(self, socket: WebSocketConnection) -> None:
        run = self._hub.again
        by_id: dict[str, Story] = {}
        for number, story in enumerate(self.stories):
            by_id[f"{self.name}-{number}"] = story
            await self._ask(socket, f"{self.name}-{number}", story, run)
        heard = 0
        while True:
            with trio.move_on_after(SILENT_S) as patience:
                text = await socket.get_message()
            if patience.cancelled_caught:
                raise LinkLost
            said = json.loads(text)
            subscription_id = said.get("subscription_id")
            if said["kind"] == "ack":
                continue
            if isinstance(text, bytes) or subscription_id not in by_id:
                self.troubles.append(f"{self.name}: {text!r}")
                continue
            message = by_id[subscription_id].hear(text)
            if message.kind == "event_subscription_ended":
                self.troubles += self._ended(message)
                await self._ask(socket, subscription_id, by_id[subscription_id], run)
            heard += 1
            await self._rest(heard)

    async def _ask(self, socket: WebSocketConnection, subscription_id: str, story: Story, run: int) -> None:
        asked = {
            "kind": "subscribe_stream",
            "subscription_id": subscription_id,
            "stream": story.stream,
            "filter": story.wanted.asked(),
            "options": story.begin(run),
        }
        await socket.send_message(json.dumps(asked))

    def _ended(self, message: Message) -> list[str]:
        """A subscription ends by itself when its reader is slow, as each of us is at times, and for nothing else."""
        return [] if message.reason == "slow_consumer" else [f"{self.name}: {message.text}"]


class EventSourceSubscriber(Subscriber):
    """By Server-Sent Events: one story, and `Last-Event-ID` to go on."""

    async def _sit(self) -> None:
        [story] = self.stories
        options = {key: value for key, value in story.begin(self._hub.again).items() if key != "after"}
        after = story.sittings[-1].after
        query = {key: ",".join(values) for key, values in story.wanted.asked().items()}
        camel = {"telescope_uid": "telescopeUid", "device_uid": "deviceUid", "device_type": "deviceType"}
        query = {camel.get(key, key): value for key, value in {**query, **options}.items()}
        headers = self._headers if after is None else {**self._headers, "last-event-id": after}
        url = f"http://127.0.0.1:{self._port}/internal/streams/{story.stream}?{urlencode(query)}"
        try:
            async with (
                httpx.AsyncClient(timeout=httpx.Timeout(SILENT_S), trust_env=False) as client,
                client.stream("GET", url, headers=headers) as answer,
            ):
                if answer.status_code != httpx.codes.OK:
                    if answer.status_code not in (502, 503):
                        self.troubles.append(f"{self.name}: {answer.status_code} {(await answer.aread()).decode()}")
                    raise LinkLost
                story.sittings[-1].run = self._hub.again
                heard = 0
                async with aclosing(_events(answer)) as events:
                    async for event_id, data in events:
                        message = story.hear(data)
                        if event_id != (message.position or ""):
                            self.troubles.append(f"{self.name}: id {event_id!r} of {message}")
                        if message.kind == "event_subscription_ended":
                            self.troubles += self._ended(message)
                        heard += 1
                        await self._rest(heard)
        except httpx.HTTPError:
            raise LinkLost from None


async def _events(answer: httpx.Response) -> AsyncGenerator[tuple[str, str], None]:
    """The id and the data of each event (WHATWG HTML, «Interpreting an event stream»), where lines end with LF."""
    buffer = b""
    async for piece in answer.aiter_raw():
        *blocks, buffer = (buffer + piece).split(b"\n\n")
        for block in blocks:
            fields: dict[str, list[str]] = {}
            for line in block.decode().split("\n"):
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            if "data" in fields:
                yield fields.get("id", [""])[0], "\n".join(fields["data"])
