"""The hub, the fleet and its audience of one run of the checker, and what is looked at when it is over."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import trio

from skygw.client.journal import FILE_NAME
from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.ids import DeviceUid, InstallId, TelescopeUid
from skygw.sim.seeds import chance_of, uid_of
from tests.fleet.telemetry.hub import Hub
from tests.fleet.telemetry.journal import FleetJournal, NodeJournal, Wanted
from tests.fleet.telemetry.publisher import Publisher
from tests.fleet.telemetry.story import PresenceStory, Story
from tests.fleet.telemetry.subscriber import EventSourceSubscriber, Subscriber

DEVICE_TYPES = ("mount", "camera", "focuser", "filter_wheel")

KEPT = """
    SELECT stream, data FROM skygw.log WHERE install_id = %s ORDER BY position
"""
REPEATED = """
    SELECT install_id::text, seq, count(*) FROM skygw.log WHERE outbox_uid IS NOT NULL
    GROUP BY install_id, outbox_uid, seq HAVING count(*) > 1
"""
OUTBOXES = "SELECT count(*), count(DISTINCT install_id) FROM skygw.node_outbox"


@dataclass
class World:
    """Everything that runs while there is trouble."""

    hub: Hub
    journal: FleetJournal
    publishers: Sequence[Publisher]
    subscribers: Sequence[Subscriber]
    state_dirs: dict[InstallId, Path]

    @property
    def stories(self) -> list[Story]:
        return [story for subscriber in self.subscribers for story in subscriber.stories]

    @property
    def presence(self) -> PresenceStory:
        return next(story for story in self.stories if isinstance(story, PresenceStory))

    def unsettled(self) -> list[str]:
        """What is still waited for."""
        return [
            *[str(each.journal.install_id) for each in self.publishers if not each.is_settled],
            *[story.name for story in self.stories if not story.is_complete],
        ]

    async def settle(self, within_s: float) -> list[str]:
        """When all follow, the fleet falls silent; returns what has not come to rest by then."""
        with trio.move_on_after(within_s):
            for subscriber in self.subscribers:
                subscriber.hurry()
            while not all(story.is_live(self.hub.again) for story in self.stories):  # noqa: ASYNC110 - as below
                await trio.sleep(0.1)
            async with trio.open_nursery() as nursery:
                for publisher in self.publishers:
                    nursery.start_soon(publisher.fall_silent)
            while self.unsettled():  # noqa: ASYNC110 - many parties, and a bound for all of them
                await trio.sleep(0.1)
        return self.unsettled()

    async def kept(self, node: NodeJournal) -> list[tuple[str, str]]:
        """Stream and text of all that the hub's log holds of a node, in order."""
        return [(row[0], row[1]) for row in await self._query(KEPT, [node.install_id])]

    async def kept_twice(self) -> list[tuple[Any, ...]]:
        return await self._query(REPEATED)

    async def outboxes(self) -> tuple[Any, ...]:
        """How many outboxes the hub has heard of, and of how many nodes."""
        return (await self._query(OUTBOXES))[0]

    async def _query(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        def ask() -> list[tuple[Any, ...]]:
            with psycopg.connect(self.hub.gateway.owner_url) as connection:
                return connection.execute(query.encode(), values).fetchall()

        return await trio.to_thread.run_sync(ask)

    async def node_view(self, node: NodeJournal) -> dict[str, Any]:
        """What operators are told of a node."""
        headers = {"authorization": f"Bearer {self.hub.gateway.service_token()}"}
        async with httpx.AsyncClient(base_url=self.hub.gateway.internal_url, headers=headers, trust_env=False) as http:
            return dict((await http.get(f"/internal/nodes/{node.install_id}")).json())

    async def newcomer(self, stream: str, within_s: float) -> Story:
        """Who subscribes only now is told everything there is."""
        story = Story(f"newcomer {stream}", stream, Wanted(), self.journal)
        subscriber = Subscriber("newcomer", self.hub, [story], chance=chance_of("newcomer"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(subscriber.run)
            with trio.move_on_after(within_s):
                while not story.is_complete:  # noqa: ASYNC110
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()
        return story

    def left_in_outboxes(self) -> list[str]:
        """What stands on the disks of the nodes, once these have ended."""
        found: list[str] = []
        for install_id, state_dir in self.state_dirs.items():
            with closing(sqlite3.connect(state_dir / FILE_NAME)) as disk:
                [(left,)] = disk.execute("SELECT count(*) FROM frames")
            if left:
                found.append(f"{install_id}: {left} reports")
        return found


@asynccontextmanager
async def open_world(directory: Path, seed: str, *, nodes: int) -> AsyncIterator[World]:
    """Everybody runs and everything is connected once; leaving ends them all."""
    hub = Hub(directory / "hub")
    journal = FleetJournal()
    state_dirs: dict[InstallId, Path] = {}
    for number in range(nodes):
        node = _node(seed, number)
        journal.nodes[node.install_id] = node
        state_dirs[node.install_id] = directory / f"node-{number}"
    async with trio.open_nursery() as hub_runs:
        await hub_runs.start(hub.run)
        await provision(hub.gateway.owner_url, _records(journal))
        publishers = [
            Publisher(node, hub, state_dir=state_dirs[node.install_id], chance=chance_of(seed, "node", number))
            for number, node in enumerate(journal)
        ]
        subscribers = _audience(hub, journal, seed)
        async with trio.open_nursery() as nursery:
            for subscriber in subscribers:
                nursery.start_soon(subscriber.run)
            for publisher in publishers:
                nursery.start_soon(publisher.run)
            yield World(hub, journal, publishers, subscribers, state_dirs)
            nursery.cancel_scope.cancel()
        hub_runs.cancel_scope.cancel()


def _node(seed: str, number: int) -> NodeJournal:
    return NodeJournal(
        install_id=InstallId(uid_of("checker", seed, number, "installation")),
        telescope_uid=TelescopeUid(uid_of("checker", seed, number, "telescope")),
        observatory_uid=uid_of("checker", seed, number // 2, "observatory"),
        devices={DeviceUid(uid_of("checker", seed, number, each)): each for each in DEVICE_TYPES},
    )


def _records(journal: FleetJournal) -> list[NewObservatory]:
    places: dict[Any, list[NewTelescope]] = {}
    for node in journal:
        places.setdefault(node.observatory_uid, []).append(
            NewTelescope(
                node.telescope_uid,
                f"telescope {node.install_id}",
                devices=tuple(NewDevice(uid, device_type) for uid, device_type in node.devices.items()),
                install_id=node.install_id,
            )
        )
    return [NewObservatory(uid, f"observatory {uid}", telescopes=tuple(those)) for uid, those in places.items()]


def _audience(hub: Hub, journal: FleetJournal, seed: str) -> list[Subscriber]:
    """Filters of every kind, and readers of every kind."""
    first, second, *_ = journal
    last = [*journal][-1]
    everything = Wanted()
    telescopes = Wanted(telescope_uid=frozenset({first.telescope_uid, second.telescope_uid}))
    devices = Wanted(device_uid=frozenset({*list(first.devices)[:2], *list(last.devices)[1:]}))
    mounts = Wanted(device_type=frozenset({"mount", "camera"}), telescope_uid=frozenset({last.telescope_uid}))
    installation = Wanted(install_id=frozenset({second.install_id}))

    def stories(name: str, wanted: Wanted, *streams: str, **how: Any) -> list[Story]:
        return [Story(f"{name} {stream}", stream, wanted, journal, **how) for stream in streams]

    def subscriber(name: str, those: Sequence[Story], *, is_slow: bool = False) -> Subscriber:
        return Subscriber(name, hub, those, chance=chance_of(seed, "subscriber", name), is_slow=is_slow)

    def event_source(name: str, story: Story) -> Subscriber:
        story.breaks_lines = True
        return EventSourceSubscriber(name, hub, [story], chance=chance_of(seed, "subscriber", name))

    snapshots, logs = ("device_snapshot", "telescope_snapshot"), ("telescope_log", "node_event")
    [by_http, logs_by_http] = stories("by HTTP", everything, "device_snapshot", "telescope_log")
    return [
        subscriber("all", stories("all", everything, *snapshots, *logs)),
        subscriber("telescopes", stories("telescopes", telescopes, *snapshots, *logs)),
        subscriber("devices", stories("devices", devices, "device_snapshot", *logs)),
        subscriber("types", stories("types", mounts, "device_snapshot")),
        subscriber("installation", stories("installation", installation, *snapshots, *logs)),
        subscriber("slow", stories("slow", everything, "device_snapshot", "telescope_log"), is_slow=True),
        subscriber("rate", stories("rate", everything, "device_snapshot", options={"max_rate_hz": 1.0})),
        subscriber("presence", [PresenceStory("presence", "node_presence", everything, journal)]),
        subscriber("anew", stories("anew", everything, "device_snapshot", *logs, resumes=False)),
        event_source("http", by_http),
        event_source("http-log", logs_by_http),
    ]
