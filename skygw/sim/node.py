"""One simulated installation: its part of a site behind a node client, as a SkyNode would run it."""

import math
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import trio

from skygw import __version__
from skygw.client.link import Link, open_link
from skygw.client.node import (
    Command,
    CommandOutcome,
    Following,
    HardwareCopy,
    LeaseOver,
    LinkLossPolicy,
    NodeClient,
    NodeConfig,
    OnExpiry,
    Token,
    monotonic_ms,
)
from skygw.ids import InstallId
from skygw.protocol.interlocks import defies_interlock
from skygw.protocol.node_frames import CanceledHow, CommandStatus
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.sim.blueprint import Layout
from skygw.sim.devices.device import Refused
from skygw.sim.fault_proxy import FaultProxy
from skygw.sim.faults import NodeFaults
from skygw.sim.frame_store import FrameStore
from skygw.sim.installation import Execution, Site, what_is_left
from skygw.sim.journal import Order
from skygw.sim.line import Line
from skygw.sim.operations import NodeOperations
from skygw.sim.posts import Post
from skygw.sim.telemetry import NodeTelemetry
from skygw.sim.weather_watch import WeatherWatch

READ_BACK_S = 5.0
"""What reading the devices back after a cancel may take."""

CONNECT_TIMEOUT_S = 20.0
DISCONNECT_TIMEOUT_S = 0.2
"""How long a node that ends waits for the gateway's goodbye: a fleet does not insist on it."""

TokenOf = Callable[[InstallId], Awaitable[Token]]
"""Gets an installation its token, before every connect and for every renewal."""


@dataclass(frozen=True, kw_only=True)
class NodeHabits:
    """How a simulated node behaves on its link; times are real seconds, not the site's."""

    url: str
    """`ws://…/v1/ws/node`."""
    token_of: TokenOf
    snapshot_every_s: float = 10.0
    progress_every_s: float = 0.5
    link_loss_after_s: float = 300.0
    weather_max_age_s: float = 60.0
    """How old the weather of another installation may be before the node shuts its telescope."""
    monotonic_ahead_s: float = 0.0
    """The node's own monotonic clock counts from elsewhere: no answer may depend on it."""
    line: Line | None = None
    """What each node has between itself and the gateway; none is this machine's own network."""
    line_seed: str = "line"
    """The same seed gives the same installation the same troubles on its line."""


@dataclass
class NodeCounts:
    """What one node has seen since it was made."""

    links: int = 0
    commands: int = 0


class SimulatedNode:
    """Runs one `Post`. The site is shared with the site's other nodes: all of them live in one Trio thread."""

    def __init__(self, post: Post, site: Site, frames: FrameStore, *, habits: NodeHabits, state_dir: Path) -> None:
        self.post = post
        self.install_id = post.install_id
        self.faults = NodeFaults()
        self.counts = NodeCounts()
        self._site = site
        self._habits = habits
        self.proxy = None if habits.line is None else _proxy(habits, habits.line, post.install_id)
        self._dialled: tuple[str, int] | None = None
        device_uids = [device.uid for device in post.devices]
        self.operations = NodeOperations(site, frames, devices=device_uids, faults=self.faults)
        self.client = NodeClient(
            NodeConfig(
                url=habits.url,
                install_id=post.install_id,
                instance_uid=post.instance_uid,
                node_type=post.node_type,
                software_version=f"skygw-sim/{__version__}",
                token=lambda: habits.token_of(post.install_id),
                state_dir=state_dir,
                features=("simulated",),
                link_loss_after_s=habits.link_loss_after_s,
            ),
            connect=self._counted_link,
            now_ms=lambda: monotonic_ms() + habits.monotonic_ahead_s * 1000,
        )
        self.weather = self._follow_weather()
        """What the node hears of a weather sensor that another installation runs, if it depends on one."""
        self._watch = None if self.weather is None else self._watch_over(self.weather)
        if self._watch is not None and site.enclosure in post.devices:
            site.why_shut = self._watch.why_shut
        self._why_shut = site.why_shut if self._watch is None else self._watch.why_shut
        self.telemetry = NodeTelemetry(
            post,
            site,
            self.client,
            every_s=habits.snapshot_every_s,
            why_shut=self._why_shut,
            note=self._note,
        )
        self.operations.register(self.client)
        self.client.command_handler(self._carry_out)
        self.client.full_state(self._publish_everything)
        self.client.on_link_lost(self._follow_link_loss)
        self.client.on_lease_over(self._follow_lease_over)
        self.client.hardware.on_change(self._take_hardware)

    async def run(self) -> None:
        """Connect and stay connected until cancelled; publish snapshots all the while."""
        async with trio.open_nursery() as nursery:
            if self.proxy is not None:
                self._dialled = ("127.0.0.1", await nursery.start(self.proxy.run))
            if self._watch is not None:
                nursery.start_soon(self._watch.run)  # whatever becomes of the link
            await nursery.start(self.client.run)
            await self.telemetry.run()

    @asynccontextmanager
    async def _counted_link(self, token: str) -> AsyncIterator[Link]:
        async with open_link(
            self._habits.url,
            token=token,
            connect_timeout_s=CONNECT_TIMEOUT_S,
            disconnect_timeout_s=DISCONNECT_TIMEOUT_S,
            dialled=self._dialled,
        ) as link:
            self.counts.links += 1
            yield link

    async def _publish_everything(self) -> None:
        self.telemetry.publish()

    async def _take_hardware(self, hardware: HardwareCopy) -> None:
        await trio.lowlevel.checkpoint()
        self._note(f"the hardware graph is at revision {hardware.revision}: {len(hardware.graph)} resources")

    def _note(self, line: str) -> None:
        self.operations.log_lines.append(f"{self._site.clock.now().isoformat(timespec='milliseconds')} {line}")

    # Commands.

    async def _carry_out(self, command: Command) -> CommandOutcome:
        self.counts.commands += 1
        self._note(f"{command.type} {command.id} begins")
        problem = self._not_mine(command)
        if problem is not None:
            return CommandOutcome.rejected("not_found", problem)
        interlock = self._why_shut()
        if interlock is not None and defies_interlock(command.type):
            return CommandOutcome.rejected("interlock_active", f"A shutdown interlock is active: {interlock}.")
        try:
            outcome = await self._execute(command)
        except* trio.Cancelled:
            # Ended from outside: the site has stopped the hardware, and the hub is told what it reads now. It comes out
            # of a nursery, where there is one for each task.
            with trio.move_on_after(READ_BACK_S, shield=True):
                command.report(await self._interrupted(command))
            raise
        self.telemetry.publish()
        line = f"{command.type} {command.id} {outcome.status.value}"
        self._note(line)
        await self.telemetry.log_command(line, command.id)
        return outcome

    def _not_mine(self, command: Command) -> str | None:
        """Why this command is for another installation of the site."""
        telescopes = {telescope.uid for telescope in self.post.telescopes}
        if command.telescope_uid is not None and command.telescope_uid not in telescopes:
            return f"This installation does not run the telescope {command.telescope_uid}."
        if command.device_uid is not None and command.device_uid not in {device.uid for device in self.post.devices}:
            return f"This installation does not run the device {command.device_uid}."
        return None

    async def _execute(self, command: Command) -> CommandOutcome:
        """To its end, to the caller's deadline, or to a cancel: in each case with what the devices say afterwards."""
        execution: Execution | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell_progress, command, nursery.cancel_scope)
            nursery.start_soon(self._cancel_when_asked, command, nursery.cancel_scope)
            nursery.cancel_scope.deadline = command.deadline
            execution = await self._site.execute(
                command.body.value,
                command.id,
                telescope_uid=command.telescope_uid,
                device_uid=command.device_uid,
            )
            nursery.cancel_scope.deadline = math.inf
            nursery.cancel_scope.cancel()
        if execution is not None:
            return _outcome(execution)
        outcome = await self._interrupted(command)
        if command.cancel_requested.is_set():
            return outcome
        failed = CommandOutcome.failed(
            "deadline_exceeded", "The caller's time ran out; the hardware was stopped.", proof=outcome.proof
        )
        return replace(failed, result=outcome.result)

    async def _cancel_when_asked(self, command: Command, work: trio.CancelScope) -> None:
        await command.cancel_requested.wait()
        work.cancel()

    async def _interrupted(self, command: Command) -> CommandOutcome:
        try:
            proof = await self._site.prove_for(
                command.body.value, telescope_uid=command.telescope_uid, device_uid=command.device_uid
            )
        except Refused as refused:
            return CommandOutcome.rejected(refused.reason, str(refused))
        return CommandOutcome.interrupted(proof=proof, result=what_is_left(command.body.value) or None)

    async def _tell_progress(self, command: Command, work: trio.CancelScope) -> None:
        """And asks for more time as soon as what is under way will not be done by the deadline."""
        while True:
            await trio.sleep(self._habits.progress_every_s)
            holders = [device for device in self._site.devices.values() if device.holder == str(command.id)]
            known = [fraction for fraction in (device.fraction_done for device in holders) if fraction is not None]
            if not known:
                continue
            left = [seconds for seconds in (device.seconds_left for device in holders) if seconds is not None]
            done_at = trio.current_time() + self._site.clock.trio_seconds(max(left, default=0.0))
            done_at += self._habits.progress_every_s  # not to be on time by a hair
            more_ms = math.ceil((done_at - command.deadline) * 1000) if done_at > command.deadline else None
            try:
                work.deadline = await command.progress(min(known), more_time_ms=more_ms)
            except sqlite3.Error as error:
                # A disk that fails must not stop the telescope.
                self._note(f"progress of {command.id} cannot be kept: {error}")

    # Policies.

    def _follow_weather(self) -> Following | None:
        if self._site.blueprint.layout is not Layout.REMOTE_WEATHER or not self.post.telescopes:
            return None
        sensor = StreamFilter(device_uid=(self._site.weather_sensor.uid,))
        return self.client.follow(StreamName.DEVICE_SNAPSHOT, filter=sensor)

    def _watch_over(self, weather: Following) -> WeatherWatch:
        async def shut(why: str) -> None:
            self._note(f"policy: {why}")
            await self._site.shut_by_policy(why, self.post.telescopes)

        return WeatherWatch(
            weather,
            self._site.weather_sensor.uid,
            max_age_s=self._habits.weather_max_age_s,
            is_shut=lambda: self._site.is_shut(self.post.telescopes),
            shut=shut,
        )

    async def _follow_link_loss(self, policy: LinkLossPolicy) -> None:
        await self._follow(OnExpiry(policy.value), f"link lost, {policy.value}")

    async def _follow_lease_over(self, over: LeaseOver) -> None:
        await self._follow(over.policy, f"lease {over.why.value}, {over.policy.value}")

    async def _follow(self, policy: OnExpiry, cause: str) -> None:
        """On everything this installation runs: its telescope, or what telescopes share."""
        self._note(f"policy: {cause}")
        match policy:
            case OnExpiry.FINISH:
                return
            case OnExpiry.STOP:
                for device in self.post.devices:
                    device.stop(Order(cause=f"policy: {cause}"))
            case OnExpiry.SAFE_SHUTDOWN:
                await self._site.shut_by_policy(cause, self.post.telescopes)
                if self._site.policy_problem is not None:
                    self._note(f"the shutdown went wrong: {self._site.policy_problem}")


def _proxy(habits: NodeHabits, line: Line, install_id: InstallId) -> FaultProxy:
    parts = urlsplit(habits.url)
    port = parts.port or (443 if parts.scheme == "wss" else 80)
    return FaultProxy(parts.hostname or "", port, line=line, seed=f"{habits.line_seed}/{install_id}")


def _outcome(execution: Execution) -> CommandOutcome:
    return CommandOutcome(
        CommandStatus(execution.status.value),
        result=execution.result or None,
        error=execution.error,
        proof=execution.proof if execution.proof["devices"] else None,
        canceled=None if execution.canceled is None else CanceledHow(execution.canceled),
    )
