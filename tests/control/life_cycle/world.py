"""Plays a history: real rooms and real node clients over memory links, on a clock that jumps, until all is quiet."""

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

import hypothesis  # noqa: F401 - with it trio takes its tasks in an order that its own source of chance decides
import trio
import trio._core._run as scheduler
import trio.testing

from skygw.ids import CommandId, InstallId
from tests.control.life_cycle.devices import Device
from tests.control.life_cycle.history import Do, History, Step, stop_of
from tests.control.life_cycle.hub import Hub
from tests.control.life_cycle.installation import Installation
from tests.control.life_cycle.places import DEVICES, NAMES, ROOF_NODE, TELESCOPE_NODE
from tests.control.life_cycle.story import FenceHeard, Heard, Line, Row, Story
from tests.control.life_cycle.wire import Wire

if TYPE_CHECKING:
    from tests.fakes.memory_database import Backup

MEMORY_DISK = Path("/dev/shm")  # noqa: S108 - the folders in it are made by tempfile
NODES = (TELESCOPE_NODE, ROOF_NODE)
WAIT_S = 5.0
"""How long callers wait for what they sent, and cancelled, to end."""
GRACE_S = 0.4
QUIET_S = 5.0
DISK_SHARE = 0.25
"""A slow disk takes a part of the time other things take."""
COME_BACK_S = 2_000.0


def play(history: History) -> Story:
    """What happened. The same history happens in the same way again."""
    with _directory() as directory, _quiet_logs():
        scheduler._r.seed(history.seed)
        world = World(history, directory)
        trio.run(world.run, clock=trio.testing.MockClock(autojump_threshold=0))
        return world.story


@contextmanager
def _directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="skygw-life-", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None) as name:
        yield Path(name)


@contextmanager
def _quiet_logs() -> Iterator[None]:
    """What goes wrong in a history is meant to."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


class World:
    """Everything of one history."""

    def __init__(self, history: History, directory: Path) -> None:
        self.story = Story()
        self._history = history
        self._chance = Random(history.seed)  # noqa: S311 - repeatable, not secret
        self._directory = directory
        self._backup: Backup | None = None
        self._puts = 0
        self._strays: dict[InstallId, list[str]] = {install_id: [] for install_id in NODES}

    async def run(self) -> None:
        history = self._history
        self.hub = Hub(story=self.story, secrets=Random(history.seed + 1))  # noqa: S311
        self.nodes: dict[InstallId, Installation] = {}
        for install_id in NODES:
            devices = {
                UUID(int=uid.int): Device(uid, self.story, brake_s=history.brake_s, obeys=history.obeys)
                for uid in DEVICES[install_id]
            }
            self.nodes[install_id] = Installation(
                install_id,
                story=self.story,
                directory=self._directory,
                chance=self._chance,
                dial=self._dial,
                devices=devices,
            )
        async with trio.open_nursery() as self._nursery:
            await self.hub.start(self._nursery)
            for node in self.nodes.values():
                node.start(self._nursery)
            await self._connected()
            for step in history.steps:
                await trio.sleep(step.after_s)
                await self._take(step)
            await self._settle(history)
            self._nursery.cancel_scope.cancel()

    # Wires.

    def _dial(self, install_id: InstallId) -> Wire:
        node = self.nodes[install_id]
        fastest = float("inf")

        def put(message: str) -> int:
            self._puts += 1
            if '"kind":"event_command"' in message:
                self._strays[install_id].append(message)
                for frame in _frames(message):
                    key = node.name, CommandId(UUID(str(frame["command_id"])))
                    self.story.put.setdefault(key, []).append((trio.current_time(), self._puts))
            return self._puts

        def taken(message: str, put_at: float, number: int) -> None:
            nonlocal fastest
            now = trio.current_time()
            if '"t_ms"' in message:
                fastest = min(fastest, now - put_at)
            if '"kind":"event_' not in message:
                return
            for frame in _frames(message):
                if frame["kind"] == "event_manual_control_lease":
                    uid = UUID(str(frame.get("telescope_uid") or frame.get("enclosure_uid")))
                    self.story.fences.append(FenceHeard(node.name, uid, int(str(frame["fence"])), now))
                elif frame["kind"] == "event_command":
                    self._heard(node.name, frame, now, number, fastest)

        wire = self.hub.dial(install_id, lambda: Wire(latency_s=self._history.latency_s, on_put=put, on_taken=taken))
        self.story.lines.append(Line(node.name, trio.current_time()))
        return wire

    def _heard(self, name: str, frame: dict[str, object], now: float, number: int, fastest: float) -> None:
        uid = frame.get("fence_uid") or frame.get("device_uid") or frame.get("telescope_uid")
        fence = frame.get("fence")
        self.story.heard.append(
            Heard(
                CommandId(UUID(str(frame["command_id"]))),
                name,
                now,
                number,
                fastest,
                None if uid is None else UUID(str(uid)),
                None if fence is None else int(str(fence)),
            )
        )

    def _trouble(self, node: Installation) -> None:
        for line in self.story.lines:
            if line.node == node.name:
                line.troubled_at = min(line.troubled_at, trio.current_time())

    # Steps.

    async def _take(self, step: Step) -> None:
        orders, leases, hub = self._history.orders, self._history.leases, self.hub
        node = self.nodes[NODES[step.node]]
        match step.do:
            case Do.SUBMIT | Do.REUSE:
                await hub.submit(
                    orders[step.number],
                    caller=step.caller,
                    lease=step.lease,
                    other=step.do is Do.REUSE,
                    wait_s=WAIT_S,
                )
            case Do.STOP:
                await hub.submit(
                    stop_of(orders[step.number]), caller=step.caller, lease=None, other=False, wait_s=WAIT_S
                )
            case Do.CANCEL:
                hub.cancel(
                    orders[step.number].command_id, caller=step.caller, mode=step.mode, grace_s=GRACE_S, wait_s=WAIT_S
                )
            case Do.LOOK:
                hub.look(orders[step.number].command_id)
            case Do.ACQUIRE:
                hub.acquire(step.number, leases[step.number])
            case Do.RENEW:
                hub.renew(step.number, leases[step.number])
            case Do.RELEASE | Do.BREAK:
                hub.give_up(step.number % len(leases), is_broken=step.do is Do.BREAK)
            case Do.CUT | Do.SILENCE | Do.HOLD | Do.STICK | Do.STRAY:
                self._break_line(step, node)
            case Do.NODE_ENDS:
                self._trouble(node)
                node.end()
            case Do.NODE_DIES:
                self._trouble(node)
                node.kill(in_flight=step.flag)
            case Do.NODE_STARTS:
                node.start(self._nursery)
            case Do.SLOW_DISK:
                node.disk_s = 0.0 if step.flag else step.for_s * DISK_SHARE
            case Do.BACK_UP:
                self._backup = hub.database.back_up()
            case _:
                await self._take_of_hub(step)

    async def _take_of_hub(self, step: Step) -> None:
        switches = (self.hub.database.switch, self.hub.database.lease_switch)
        match step.do:
            case Do.GATEWAY_ENDS | Do.GATEWAY_DIES | Do.RESTORE:
                for node in self.nodes.values():
                    self._trouble(node)
                if step.do is Do.GATEWAY_ENDS:
                    await self.hub.end()
                else:
                    self.hub.kill(in_flight=step.flag)
                if step.do is Do.RESTORE and self._backup is not None:
                    self.story.restored_at.append(trio.current_time())
                    self.hub.database.restore(self._backup)
            case Do.GATEWAY_STARTS:
                await self.hub.start(self._nursery)
            case Do.DATABASE_AWAY | Do.DATABASE_BACK:
                for switch in switches:
                    switch.away = step.do is Do.DATABASE_AWAY
            case Do.DATABASE_SLOW:
                for switch in switches:
                    switch.slow_s = 0.0 if step.flag else min(step.for_s, 4.0) / 2
            case Do.ANSWERS_LOST:
                switches[0].answers_lost = step.flag
            case _:
                raise ValueError(step.do)

    def _break_line(self, step: Step, node: Installation) -> None:
        wire = node.wire
        if wire is None:
            return
        self._trouble(node)
        match step.do:
            case Do.CUT:
                wire.cut(in_flight=step.flag)
            case Do.SILENCE:
                wire.fall_silent(in_flight=step.flag)
            case Do.HOLD:
                for way in (wire.down, wire.up) if step.flag else (wire.down,):
                    way.held_until = trio.current_time() + step.for_s
                    way.wake()
            case Do.STICK:
                wire.stick(step.for_s)
            case _:  # what went by this wire, or by one before it, comes once more
                for text in self._strays[node.install_id]:
                    wire.down.put(text, 0)

    # The end.

    async def _settle(self, history: History) -> None:
        """Everything works again, until everybody who was asked has answered and nothing moves."""
        for switch in (self.hub.database.switch, self.hub.database.lease_switch):
            switch.away, switch.slow_s, switch.answers_lost = False, 0.0, False
        await self.hub.start(self._nursery)
        for node in self.nodes.values():
            node.disk_s = 0.0
            node.start(self._nursery)
        slow = [step.for_s for step in history.steps if step.do is Do.SLOW_DISK]
        await trio.sleep(max(slow, default=0.0) * DISK_SHARE)
        quiet_at = max((node.wire.quiet_at for node in self.nodes.values() if node.wire is not None), default=0.0)
        await trio.sleep_until(max(quiet_at, trio.current_time()))
        await self._connected()
        await trio.sleep(QUIET_S)
        for device in [device for node in self.nodes.values() for device in node.devices.values()]:
            await device.stands()
        await trio.sleep(QUIET_S)
        await self._connected()
        for order in self._history.orders:
            self.hub.look(order.command_id)
            self.hub.look(stop_of(order).command_id)
        await trio.sleep(1.0)
        self._take_stock()

    async def _connected(self) -> None:
        """Waits until both nodes hold a link over which the gateway has everything they have to say."""
        with trio.fail_after(COME_BACK_S):
            while not all(map(self._is_in_step, self.nodes.values())):  # noqa: ASYNC110 - of several tables
                await trio.sleep(0.25)

    def _is_in_step(self, node: Installation) -> bool:
        client = None if node.program is None else node.program.client
        process = self.hub.process
        if client is None or client._outbox is None or client._session is None or process is None:
            return False
        rooms = process.rooms
        session = None if rooms is None else rooms.registry.current(node.install_id)
        if session is None or session.epoch != client._known_state().now.last_epoch:
            return False
        return client._outbox.acked == client._outbox.last_seq

    def _take_stock(self) -> None:
        for row in self.hub.database.commands.rows.values():
            self.story.rows.append(
                Row(
                    row.command_id,
                    row.state,
                    tuple(step.state for step in row.transitions),
                    row.canceled,
                    row.proof is not None and '"read_back"' in row.proof,
                    row.transitions[-1].detail,
                    NAMES[row.install_id],
                )
            )
        for node in self.nodes.values():
            self.story.outcomes |= {(node.name, command_id): end for command_id, end in node.outcomes().items()}


def _frames(message: str) -> list[dict[str, object]]:
    read = json.loads(message)
    return read if isinstance(read, list) else [read]
