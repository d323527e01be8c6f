"""An installation that talks all the time, over a line that breaks, and writes down what it says as it leaves."""

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import trio

from skygw.client.link import Link, open_link
from skygw.client.node import NodeClient, NodeConfig, Token
from skygw.ids import InstanceUid
from skygw.protocol.limits import MIB
from skygw.protocol.node_frames import NodeType, SnapshotStream
from skygw.sim.fault_proxy import FaultProxy
from tests.fleet.telemetry.hub import Hub
from tests.fleet.telemetry.journal import Line, NodeJournal, Sent
from tests.fleet.telemetry.spelling import odd_text, raw_members

EVERY_S = (0.05, 0.25)
"""Between two things it says."""

FLOOD_LINES, FLOOD_CHARACTERS = 40, 40_000
"""1.6 MB: more than its outbox takes, and than a subscriber may leave unread."""

SOONER = 0.2
"""Of the longest wait before it comes back: real ones may take half a minute."""

WORDS = (
    "ok",
    "Ångström",
    "αβγ",
    "望遠鏡",
    "🔭",
    "a/b",
    'say "hi"',
    "back\\slash",
    "tab\tline\n",
    "\u2028\u0085",
    "\x7f",
)


class Publisher:
    """`run` until cancelled; the rest may be called at any time."""

    def __init__(self, journal: NodeJournal, hub: Hub, *, state_dir: Path, chance: Random) -> None:
        self.journal = journal
        self.line = FaultProxy("127.0.0.1", hub.node_port)
        """What lies between it and the gateway."""
        self.client: NodeClient | None = None
        self._hub = hub
        self._state_dir = state_dir
        self._chance = chance
        self._port = 0
        self._data: dict[tuple[SnapshotStream, UUID], dict[str, Any]] = {}
        self._restart = False
        self._flood = False
        self._ending = False
        self._said_last = trio.Event()

    def restart(self) -> None:
        """The program ends and is started again on the same disk."""
        self._restart = True

    def flood(self) -> None:
        """A burst of large log lines while nothing moves on its line: the outbox overflows, and a gap is declared."""
        self._flood = True

    async def fall_silent(self) -> None:
        """Returns when it has said its last words; it stays connected."""
        self._ending = True
        await self._said_last.wait()

    @property
    def is_settled(self) -> bool:
        """Connected, and the hub has acknowledged all it reported."""
        return self.client is not None and self.client.connected and self.journal.acked_seq >= self.journal.last_seq

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._port = await nursery.start(self.line.run)
            while True:
                await self._run_program()

    async def _run_program(self) -> None:
        """From its start to its end."""
        self._restart = False
        client = self.client = NodeClient(
            NodeConfig(
                url=f"ws://127.0.0.1:{self._port}/v1/ws/node",
                install_id=self.journal.install_id,
                node_type=NodeType.TELESCOPE,
                software_version="checker 1",
                token=self._token,
                state_dir=self._state_dir,
                instance_uid=InstanceUid(self.journal.install_id),
                outbox_bytes=MIB,
            ),
            connect=self._connect,
            chance=lambda: self._chance.random() * SOONER,
        )
        client.full_state(partial(self._say_everything, client))
        async with trio.open_nursery() as nursery:
            await nursery.start(client.run)
            while not self._restart:
                await self._say_something(client)
                await trio.sleep(self._chance.uniform(*EVERY_S))
            nursery.cancel_scope.cancel()

    async def _token(self) -> Token:
        return Token(self._hub.gateway.node_token(self.journal.install_id))

    @asynccontextmanager
    async def _connect(self, token: str) -> AsyncIterator[Link]:
        url = f"ws://127.0.0.1:{self._port}/v1/ws/node"
        async with open_link(url, token=token, connect_timeout_s=5.0, disconnect_timeout_s=0.2) as link:
            yield RecordedLink(link, self.journal)

    # What it says.

    async def _say_something(self, client: NodeClient) -> None:
        if self._said_last.is_set():
            return
        if self._ending:
            await self._say_last(client)
            return
        for device in self._chance.sample(sorted(self.journal.devices), self._chance.randrange(3)):
            self._snapshot(client, SnapshotStream.DEVICE_SNAPSHOT, device)
        if self._chance.random() < 0.2:
            self._snapshot(client, SnapshotStream.TELESCOPE_SNAPSHOT, self.journal.telescope_uid)
        if self._chance.random() < 0.4:
            await self._report(client, "telescope_log")
        if self._chance.random() < 0.1:
            await self._report(client, "node_event")
        if self._flood:
            self._flood = False
            self.line.hold()
            for _ in range(FLOOD_LINES):
                await self._report(client, "telescope_log", filler="x" * FLOOD_CHARACTERS)
            self.line.release()

    async def _say_last(self, client: NodeClient) -> None:
        for device in self.journal.devices:
            self._snapshot(client, SnapshotStream.DEVICE_SNAPSHOT, device)
        self._snapshot(client, SnapshotStream.TELESCOPE_SNAPSHOT, self.journal.telescope_uid)
        while not self.is_settled:  # noqa: ASYNC110 - room in the outbox for the last line: it is to be told of
            await trio.sleep(0.05)
        for stream in ("telescope_log", "node_event"):
            await self._report(client, stream)
            for device in self.journal.devices:
                await self._report(client, stream, device=device)
        self._said_last.set()

    def _snapshot(self, client: NodeClient, stream: SnapshotStream, uid: UUID) -> None:
        data = self._data[stream, uid] = self._payload(uid=str(uid))
        self.journal.latest[stream.value, uid] = data["n"]
        client.publish_snapshot(stream, data)

    async def _say_everything(self, client: NodeClient) -> None:
        for (stream, _), data in list(self._data.items()):
            client.publish_snapshot(stream, data)

    async def _report(self, client: NodeClient, stream: str, *, filler: str = "", device: UUID | None = None) -> None:
        if not self._ending and self._chance.random() < 0.5:
            device = self._chance.choice(sorted(self.journal.devices))
        about = {} if device is None else {"device_uid": str(device)}
        data = self._payload(**about, filler=filler)
        publish = client.publish_log if stream == "telescope_log" else client.publish_event
        seq = await publish(data)
        self.journal.lines.append(Line(stream, data["n"], device, is_dropped=seq is None))
        self.journal.last_seq = self.journal.last_seq if seq is None else seq

    def _payload(self, **members: str) -> dict[str, Any]:
        return {
            **members,
            "n": self.journal.next(),
            "node": str(self.journal.install_id),
            "word": self._chance.choice(WORDS),
            self._chance.choice(WORDS): {"odd": self._chance.randrange(100)},
            "list": [None, True, "", {}, [], self._chance.choice(WORDS)],
        }


class RecordedLink:
    """A link that respells the `data` of what goes out, and writes down what goes, before it goes."""

    def __init__(self, link: Link, journal: NodeJournal) -> None:
        self._link = link
        self._journal = journal
        self._sent: list[Sent] = []
        journal.links.append(self._sent)

    async def send(self, messages: Sequence[str | bytes]) -> None:
        await self._link.send([self._noted(message) if isinstance(message, str) else message for message in messages])

    def _noted(self, message: str) -> str:
        members = raw_members(message)
        kind = json.loads(members["kind"])
        if kind not in ("publish_snapshot", "publish_log", "publish_event"):
            return message
        data = json.loads(members["data"])
        text = members["data"] = odd_text(data)
        self._journal.texts[data["n"]] = text
        if kind == "publish_snapshot":
            self._sent.append(Sent(json.loads(members["stream"]), UUID(data["uid"]), data["n"]))
        return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"

    async def receive(self) -> Sequence[str | bytes]:
        return [self._heard(message) for message in await self._link.receive()]

    async def receive_one(self) -> str | bytes:
        return self._heard(await self._link.receive_one())

    def _heard(self, message: str | bytes) -> str | bytes:
        frame = json.loads(message)
        for each in frame if isinstance(frame, list) else [frame]:
            if each["kind"] == "welcome":
                self._journal.epochs.append(each["epoch"])
                self._journal.acked_seq = max(self._journal.acked_seq, each["acked_seq"])
            elif each["kind"] == "ack":
                self._journal.acked_seq = max(self._journal.acked_seq, each["seq"])
            elif each["kind"] in ("nack", "error"):
                self._journal.refusals.append(str(message))
        return message

    async def keep(self) -> None:
        await self._link.keep()

    @property
    def last_received_at(self) -> float:
        return self._link.last_received_at
