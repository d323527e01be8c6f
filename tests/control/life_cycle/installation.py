"""One installation: devices, a disk, and the real node client as its program, which is killed and started again."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar
from uuid import UUID

import trio

from skygw.client.commands import Command, CommandOutcome
from skygw.client.config import NodeConfig
from skygw.client.disk_work import DiskWork
from skygw.client.journal import Journal
from skygw.client.leases import LeaseOver
from skygw.client.link import Link
from skygw.client.node import NodeClient
from skygw.ids import CommandId, InstallId, InstanceUid
from skygw.protocol.gateway_frames import LinkLossPolicy, OnExpiry
from skygw.protocol.limits import MIB
from skygw.protocol.never_received import says_never_received
from tests.control.life_cycle.devices import Busy, Device
from tests.control.life_cycle.places import BINDINGS, NAMES
from tests.control.life_cycle.story import NEVER_CAME, Call, Returned, Story
from tests.control.life_cycle.wire import Wire

T = TypeVar("T")
BELIEVED_S = 2.0
"""How long a node waits for a device to stand before it says that it does not."""
LINK_LOSS_S = 45.0

Dial = Callable[[InstallId], Wire]
"""Raises `LinkEnded` where there is no gateway."""


@dataclass
class Program:
    """One run of the node's program."""

    directory: Path | None = None
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_dead: bool = False
    over: trio.Event = field(default_factory=trio.Event)
    client: NodeClient | None = None


class Installation:
    """`start` and `kill` its program; the devices go on."""

    def __init__(
        self,
        install_id: InstallId,
        *,
        story: Story,
        directory: Path,
        chance: Random,
        dial: Dial,
        devices: dict[UUID, Device],
    ) -> None:
        self.install_id = install_id
        self.name = NAMES[install_id]
        self.devices = devices
        self.wire: Wire | None = None
        self.disk_s = 0.0
        """How long each piece of work on the disk takes."""
        self.program: Program | None = None
        self._story = story
        self._directory = directory
        self._disk: Path | None = None
        """As the last program left it."""
        self._ending: Program | None = None
        self._copies = 0
        self._chance = chance
        self._dial = dial

    def start(self, nursery: trio.Nursery) -> None:
        """If it does not run."""
        if self.program is None:
            self.program = Program()
            nursery.start_soon(self._run, self.program)

    def _copied(self, disk: Path | None) -> Path:
        self._copies += 1
        copy = self._directory / f"{self.name}-{self._copies}"
        if disk is None:
            copy.mkdir()
        else:
            shutil.copytree(disk, copy)
        return copy

    def end(self) -> None:
        """The program is told to end, and does so in order; the next one begins after it."""
        program, self.program = self.program, None
        if program is not None:
            self._story.node_deaths.append((self.name, trio.current_time()))
            self._ending = program
            program.scope.cancel()

    def kill(self, *, in_flight: bool) -> None:
        """The program is gone at once: what it does from now on, it does not do to this disk, wire or device."""
        program, self.program = self.program, None
        if program is None:
            return
        self._story.node_deaths.append((self.name, trio.current_time()))
        if self.wire is not None:
            self.wire.node_end.is_dead = True
            self.wire.cut(in_flight=in_flight)
        program.is_dead = True
        if program.directory is not None:
            self._disk = self._copied(program.directory)
        program.scope.cancel()

    async def _run(self, program: Program) -> None:
        with program.scope:
            if self._ending is not None:
                await self._ending.over.wait()
                self._disk, self._ending = self._ending.directory or self._disk, None
            program.directory = self._copied(self._disk)
            await self._run_client(program, program.directory)
        program.over.set()

    async def _run_client(self, program: Program, directory: Path) -> None:
        client = NodeClient(
            NodeConfig(
                url="ws://gateway/v1/ws/node",
                install_id=self.install_id,
                node_type=BINDINGS[self.install_id].node_type,
                software_version="model",
                token=_token,
                state_dir=directory,
                instance_uid=InstanceUid(self.install_id),
                link_loss_after_s=LINK_LOSS_S,
                outbox_bytes=MIB,
            ),
            connect=self._connect,
            now_ms=lambda: trio.current_time() * 1000,
            chance=self._chance.random,
            disk_work=lambda: self._disk_work(program),
        )

        async def carry_out(command: Command) -> CommandOutcome:
            if program.is_dead:
                await trio.sleep_forever()
            outcome = await self._carry_out(command, program)
            if not program.is_dead:
                self._story.returned.append(Returned(command.id, outcome.status.value, trio.current_time()))
            return outcome

        async def lease_over(over: LeaseOver) -> None:
            if over.policy is not OnExpiry.FINISH and not program.is_dead:
                self._stop_everything(None)

        async def link_lost(policy: LinkLossPolicy) -> None:
            if policy is not LinkLossPolicy.FINISH and not program.is_dead:
                self._stop_everything(None)

        client.command_handler(carry_out)
        client.on_lease_over(lease_over)
        client.on_link_lost(link_lost)
        program.client = client
        await client.run()

    def _disk_work(self, program: Program) -> DiskWork:
        async def do(work: Callable[[], T], /) -> T:
            with trio.CancelScope(shield=True):  # as a thread that was begun
                await trio.sleep(self.disk_s / 2)
                done = work()
                await trio.sleep(self.disk_s / 2)
            return done

        return do

    @asynccontextmanager
    async def _connect(self, token: str) -> AsyncIterator[Link]:
        await trio.lowlevel.checkpoint()
        wire = self.wire = self._dial(self.install_id)
        try:
            yield wire.node_end
        finally:
            wire.node_end.leave()

    # What its program does for commands.

    async def _carry_out(self, command: Command, program: Program) -> CommandOutcome:
        self._story.calls.append(Call(command.id, self.name, trio.current_time()))
        meant = self._meant(command)
        if command.safing:
            return await self._stop(command, meant)
        body = command.body.value
        device = meant[0]
        try:
            motion = device.begin(command.id, body["takes_s"])
        except Busy:
            return CommandOutcome.rejected("device_busy", "It moves already.")
        try:
            async with trio.open_nursery() as nursery:
                if not body["stubborn"]:
                    nursery.start_soon(_stop_when_asked, command, device)
                with trio.move_on_at(command.deadline) as time:
                    await device.over(motion)
                nursery.cancel_scope.cancel()
            if time.cancelled_caught:
                device.stop(command.id)
                with trio.move_on_after(BELIEVED_S):
                    await device.over(motion)
                if motion.was_stopped or device.moves:
                    return CommandOutcome.failed("deadline_exceeded", "The time ran out.", proof=_proof([device]))
        except BaseException:  # cancelled: a nursery makes a group of it
            with trio.move_on_after(BELIEVED_S, shield=True):
                if not program.is_dead:
                    device.stop(command.id)
                    await device.over(motion)
            command.report(self._found(command, device, was_stopped=motion.was_stopped))
            raise
        return self._found(command, device, was_stopped=motion.was_stopped)

    def _meant(self, command: Command) -> list[Device]:
        """The first is the one that a command moves."""
        if command.device_uid is not None:
            return [self.devices[command.device_uid]]
        family = command.type.partition(".")[0]
        everything = list(self.devices.values())
        return everything if family == "telescope" else [everything[1 if family == "camera" else 0]]

    def _found(self, command: Command, device: Device, *, was_stopped: bool) -> CommandOutcome:
        if device.moves:
            return CommandOutcome.failed("did_not_stop", "It moves on.", proof=_proof([device]))
        if not was_stopped:
            return CommandOutcome.completed(proof=_proof([device]))
        if command.cancel_requested.is_set():
            return CommandOutcome.interrupted(proof=_proof([device]))
        return CommandOutcome.failed("stopped", "Somebody stopped it.", proof=_proof([device]))

    async def _stop(self, command: Command, meant: list[Device]) -> CommandOutcome:
        for device in meant:
            device.stop(command.id)
        with trio.move_on_after(BELIEVED_S):
            for device in meant:
                await device.stands()
        if any(device.moves for device in meant):
            return CommandOutcome.failed("did_not_stop", "It moves on.", proof=_proof(meant))
        return CommandOutcome.completed(proof=_proof(meant))

    def _stop_everything(self, command_id: CommandId | None) -> None:
        for device in self.devices.values():
            device.stop(command_id)

    # What is asked of it in the end.

    def outcomes(self) -> dict[CommandId, str]:
        """What the disk says of commands that have ended."""
        if self.program is None or self.program.directory is None:
            return {}
        journal = Journal(self._copied(self.program.directory), max_bytes=MIB)
        try:
            unfinished = {report.command_id for report in journal.unfinished()}
            found = journal.begin_command
            return {
                command_id: NEVER_CAME if says_never_received(report) else report.status.value
                for command_id in journal.command_ids(at_most=1_000)
                if command_id not in unfinished
                for report in [found(command_id, ())]
                if report is not None
            }
        finally:
            journal.close()


async def _stop_when_asked(command: Command, device: Device) -> None:
    await command.cancel_requested.wait()
    device.stop(command.id)


async def _token() -> str:
    return "token"


def _proof(devices: list[Device]) -> dict[str, Any]:
    return {
        "devices": [
            {
                "device_uid": str(device.uid),
                "state": "moving" if device.moves else "standing",
                "basis": "read_back",
                "samples": 2,
                "settled_ms": 100,
            }
            for device in devices
        ]
    }
