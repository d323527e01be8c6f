"""What a SkyNode embeds: keeps one link to the gateway, for ever, and never loses what it has promised."""

import logging
import random
import sqlite3
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import trio

from skygw.client.arrival import Arrivals, MonotonicMs
from skygw.client.comeback import Comebacks
from skygw.client.commands import Command, CommandHandler, CommandOutcome, Commands
from skygw.client.config import NodeConfig, Token
from skygw.client.direct import DirectCall, OperationHandler, OperationRefused, Operations
from skygw.client.disk_work import DiskWork, in_a_thread
from skygw.client.following import Followed, Following, Followings
from skygw.client.hardware import Hardware, HardwareCopy
from skygw.client.kept_state import KeptState
from skygw.client.lanes import Snapshots
from skygw.client.leases import HeldLease, LeaseHandler, LeaseOver, NodeLeases, WhyOver
from skygw.client.link import Link, LinkEnded, open_link
from skygw.client.local_control import LocalControl
from skygw.client.node_assets import NodeAssets
from skygw.client.node_tasks import NodeTasks
from skygw.client.on_site import LinkStatus, advice
from skygw.client.outbox import Outbox
from skygw.client.owed_work import Dialled, OwedWork
from skygw.client.session import Session, SessionNeeds, as_token, greet
from skygw.client.spare_disk import SpareDisk
from skygw.client.tasks import OfferHandler, TaskChanged, TaskHandler, TaskNews, tell_directive
from skygw.client.telemetry_posts import TelemetryPosts
from skygw.client.work_items import Asset, AssetState, FailedItem
from skygw.client.work_queue import Owed, WorkQueue
from skygw.ids import BootId, CommandId, InstallId
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import encode
from skygw.protocol.frame import MAX_SEQ
from skygw.protocol.gateway_frames import LinkLossPolicy, OnExpiry, TaskDirective, Welcome
from skygw.protocol.json_text import Opaque, too_complex
from skygw.protocol.limits import MAX_SNAPSHOT_BYTES
from skygw.protocol.node_frames import Hello, NodeType, PublishEvent, PublishLog, PublishSnapshot, SnapshotStream
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.websocket import LinkClosed

__all__ = [
    "Asset",
    "AssetState",
    "Command",
    "CommandOutcome",
    "DirectCall",
    "FailedItem",
    "Followed",
    "Following",
    "Hardware",
    "HardwareCopy",
    "HeldLease",
    "InstallId",
    "LeaseOver",
    "LinkEnded",
    "LinkLossPolicy",
    "LinkStatus",
    "NodeAssets",
    "NodeClient",
    "NodeConfig",
    "NodeTasks",
    "NodeType",
    "OnExpiry",
    "OperationRefused",
    "SnapshotStream",
    "StreamFilter",
    "StreamName",
    "TaskChanged",
    "TaskDirective",
    "Token",
    "WhyOver",
]

log = logging.getLogger("skygw.client")

RESULTS_IN_HELLO = 500
"""500 ids are 20 KiB of the 64 KiB a message may have."""

Connector = Callable[[str], AbstractAsyncContextManager[Link]]
"""Opens a link with a token. Raises `LinkEnded`."""

FullState = Callable[[], Awaitable[None]]
LinkLost = Callable[[LinkLossPolicy], Awaitable[None]]


def monotonic_ms() -> float:
    return time.monotonic() * 1000


class NodeClient:
    """Register operations and handlers, then `run`. Everything here belongs to the one Trio thread that runs it."""

    def __init__(
        self,
        config: NodeConfig,
        *,
        connect: Connector | None = None,
        dialled: Dialled | None = None,
        now_ms: MonotonicMs = monotonic_ms,
        chance: Callable[[], float] = random.random,
        disk_work: Callable[[], DiskWork] = in_a_thread,
    ) -> None:
        """`dialled` says, when `run` begins, where HTTP is dialled instead of the gateway's own host and port.
        `disk_work` is made four times: for the journal, the work that is owed, the state and the hardware graph.
        """
        self._config = config
        self._dialled = dialled
        self._chance = chance
        self._disk_work = disk_work
        self._connect = connect or self._open_link
        self._now_ms = now_ms
        self._comebacks = Comebacks(chance)
        self._operations = Operations()
        self._snapshots = Snapshots()
        self._followings = Followings()
        self._command_handler: CommandHandler | None = None
        self._full_state: FullState | None = None
        self._link_lost: LinkLost | None = None
        self._lease_over: LeaseHandler | None = None
        self._task_changed: TaskHandler | None = None
        self._tasks_offered: OfferHandler | None = None
        self._local_control = LocalControl(config.node_type)
        self.hardware = Hardware(
            url=config.url, token=config.token, directory=config.state_dir, ssl_context=config.ssl_context
        )
        """The hub's records of what this node sees: the last copy it had, with the gateway or without it."""
        self._live_seq = 0
        self._boot_id = BootId(uuid4())
        self._outbox: Outbox | None = None
        self._owed: OwedWork | None = None
        self._state: KeptState | None = None
        self._leases: NodeLeases | None = None
        self._session: Session | None = None
        self._up = trio.Event()
        self._down = trio.Event()
        self._welcomed_at: float | None = None
        self.last_end: LinkEnded | None = None
        """Why the last link ended, to be shown on site."""
        self.coming_back_in_s: float | None = None
        """The wait that is going on, from its beginning."""
        self._advice: str | None = None

    # Before `run`.

    def operation(self, name: str, *, effects: str) -> Callable[[OperationHandler], OperationHandler]:
        """Registers a direct operation: `effects` is `none` or `transfer`, anything else is a `ValueError`."""

        def register(handler: OperationHandler) -> OperationHandler:
            self._operations.register(name, handler, effects=effects)
            return handler

        return register

    def command_handler(self, handler: CommandHandler) -> CommandHandler:
        """The one handler of all commands; without it every command is rejected."""
        self._command_handler = handler
        return handler

    def full_state(self, handler: FullState) -> FullState:
        """Called after every welcome, to publish everything there is. The newest snapshots are sent again anyway."""
        self._full_state = handler
        return handler

    def on_link_lost(self, handler: LinkLost) -> LinkLost:
        """Called once for each loss of the link that lasts `link_loss_after_s`, at once when access is revoked.

        The policy is the hub's last word, from the disk. The handler goes on when the link comes back.
        """
        self._link_lost = handler
        return handler

    def on_lease_over(self, handler: LeaseHandler) -> LeaseHandler:
        """Called when a lease expires or its holder is silent for too long, by the node's own clock, link or no link.

        It does what the lease says. It goes on when the lease is renewed meanwhile, or the link comes back.
        """
        self._lease_over = handler
        return handler

    def on_task_changed(self, handler: TaskHandler) -> TaskHandler:
        """Called when the hub wants something of a task that was claimed, such as to abort it for whoever gets a lease.
        It may be told again while that holds.
        """
        self._task_changed = handler
        return handler

    def on_tasks_offered(self, handler: OfferHandler) -> OfferHandler:
        """Called when there are tasks to claim; claiming them is the handler's. One call at a time, and another one for
        what is offered meanwhile.
        """
        self._tasks_offered = handler
        return handler

    # Who has control on site.

    @property
    def local_control(self) -> bool:
        """Whether somebody on site has taken control."""
        return self._local_control.taken

    def set_local_control(self, taken: bool) -> None:
        """By a switch on site and by nothing else, before `run` or during it. While it is taken every command but
        safing is refused here, link or no link. What runs goes on: whoever takes control decides what becomes of it.

        It is told with each `telescope_snapshot`, of an observatory's node with each `device_snapshot`, as a member
        `local_control`, and when it changes everything is published anew (see `full_state`). It is not kept over a
        restart of the program: read the switch again.
        """
        self._local_control.set(taken)

    # Publishing.

    def publish_snapshot(
        self,
        stream: SnapshotStream,
        data: dict[str, Any],
        *,
        max_silence_s: float | None = None,
        observed_at: datetime | None = None,
    ) -> None:
        """The state of one resource now; the newest of each (stream, `data["uid"]`) is kept until it can be sent.

        Raises `ValueError` for data without `uid`, that is not JSON, or that is larger or deeper than a message
        may be.
        """
        uid = data.get("uid")
        if not isinstance(uid, str):
            raise ValueError("A snapshot's data needs its resource's `uid`.")
        opaque = Opaque.of(self._local_control.told_in(stream, data))
        if len(opaque.text.encode()) > MAX_SNAPSHOT_BYTES:
            raise ValueError(f"A snapshot of {len(opaque.text)} characters cannot be sent.")
        self._live_seq = min(self._live_seq + 1, MAX_SEQ)
        frame = PublishSnapshot(
            stream=stream,
            data=opaque,
            observed_at=observed_at or datetime.now(UTC),
            max_silence_s=max_silence_s,
            live_seq=self._live_seq,
        )
        if problem := too_complex(encode(frame)):
            raise ValueError(f"This snapshot cannot be sent: {problem}.")
        self._snapshots.put(uid, frame)
        if self._session is not None:
            self._session.wake_writer()

    async def publish_log(self, data: dict[str, Any], *, observed_at: datetime | None = None) -> int | None:
        """A durable line of the log: on disk when this returns. `None` when the outbox is full and the line became
        part of a declared gap. Raises `Invalid` when too large or too deep, `sqlite3.Error` when the disk fails.
        """
        frame = PublishLog(seq=1, data=Opaque.of(data), observed_at=observed_at or datetime.now(UTC))
        return await self._running_outbox().append(frame)

    async def publish_event(self, data: dict[str, Any], *, observed_at: datetime | None = None) -> int | None:
        """A durable event; see `publish_log`."""
        frame = PublishEvent(seq=1, data=Opaque.of(data), observed_at=observed_at or datetime.now(UTC))
        return await self._running_outbox().append(frame)

    # What is owed to the hub over HTTP.

    @property
    def tasks(self) -> NodeTasks:
        """Observation tasks: claim, report, complete. While `run` runs."""
        return self._running_work().tasks

    @property
    def assets(self) -> NodeAssets:
        """Files for the hub. While `run` runs."""
        return self._running_work().assets

    @property
    def failed_items(self) -> tuple[FailedItem, ...]:
        """What the hub refuses for ever, with the reasons, the newest first; to be shown on site. While `run` runs."""
        return self._running_work().work.failed

    async def try_again(self, uid: UUID) -> bool:
        """Sends what was set aside again, behind what waits by now. Whether there was such a thing."""
        return await self._running_work().work.keep(partial(WorkQueue.try_again, uid=uid))

    async def drop_failed(self, uid: UUID) -> bool:
        """Forgets what was set aside. Whether there was such a thing."""
        return await self._running_work().work.keep(partial(WorkQueue.drop_failed, uid=uid))

    def _running_work(self) -> OwedWork:
        if self._owed is None:
            raise RuntimeError("Tasks and assets need a running client: start run() first.")
        return self._owed

    def _running_outbox(self) -> Outbox:
        if self._outbox is None:
            raise RuntimeError("Durable reports need a running client: start run() first.")
        return self._outbox

    # Following.

    def follow(
        self,
        stream: StreamName | str,
        *,
        filter: StreamFilter | dict[str, Any] | None = None,  # noqa: A002 - the protocol's word
        max_rate_hz: float | None = None,
    ) -> Following:
        """The newest of what other installations publish and this one's graph lets it see: before `run` or during it,
        kept up across links. `max_rate_hz` is per resource.

        Raises `ValueError` for a stream that no node may follow, and for a filter that none would take.
        """
        wanted = StreamFilter.model_validate(filter or {})
        return self._followings.add(StreamName(stream), wanted, max_rate_hz=max_rate_hz)

    # The link.

    @property
    def connected(self) -> bool:
        return self._session is not None

    @property
    def status(self) -> LinkStatus:
        """To be shown on site: whether there is a link, why not, and what to do when waiting alone will not help."""
        owed = Owed(0, 0, 0) if self._owed is None else self._owed.work.owed
        waiting = owed.items + owed.files
        if self.connected:
            return LinkStatus(True, "Connected to the gateway.", owed=waiting, set_aside=owed.failed)
        if self._config.post_every_s is not None:
            return LinkStatus(False, "Posts over HTTP and holds no socket.", owed=waiting, set_aside=owed.failed)
        said = "Not connected yet." if self.last_end is None else str(self.last_end)
        return LinkStatus(False, said, self._advice, self.coming_back_in_s, owed=waiting, set_aside=owed.failed)

    @property
    def leases(self) -> tuple[HeldLease, ...]:
        """Who has control here, to be shown on site: also of what is over, until the hub has said so."""
        return () if self._leases is None else tuple(self._leases)

    async def wait_connected(self) -> None:
        """Returns when the gateway has said welcome."""
        while not self.connected:
            await self._up.wait()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connects and reconnects until cancelled; started when durable reports are taken.

        Raises `StateUnreadable`, `StateInUse`, `OSError` at the start, nothing after it. Cancelling ends the link,
        cancels what runs, and keeps what it reports.
        """
        config = self._config
        spare = SpareDisk(config.state_dir, keep_free_bytes=config.keep_free_bytes)
        self._outbox = await Outbox.open(
            config.state_dir, max_bytes=config.outbox_bytes, spare=spare, disk=self._disk_work()
        )
        try:
            self._state = await KeptState.load(
                config.state_dir, instance_uid=config.instance_uid, disk=self._disk_work()
            )
            await self.hardware.load(self._disk_work())
            tasks = TaskNews(self._task_changed, self._tasks_offered)
            async with OwedWork.opened(
                config,
                self._operations,
                spare=spare,
                disk=self._disk_work(),
                directed=partial(tell_directive, tasks),
                chance=self._chance,
                dialled=self._dialled,
            ) as self._owed:
                await self._run(self._outbox, self._state, tasks, self._owed, task_status)
        finally:
            self._owed = None
            await self._outbox.close()
            self._outbox = None

    async def _run(
        self,
        outbox: Outbox,
        state: KeptState,
        tasks: TaskNews,
        owed: OwedWork,
        task_status: trio.TaskStatus[None],
    ) -> None:
        config = self._config
        commands = Commands(outbox, self._command_handler, undone=self._command_undone)
        self._leases = leases = NodeLeases(state.accept_fence, self._lease_over)
        needs = SessionNeeds(
            outbox=outbox,
            commands=commands,
            operations=self._operations,
            snapshots=self._snapshots,
            followings=self._followings,
            token_provider=config.token,
            full_state=self._publish_full_state,
            leases=leases,
            tasks=tasks,
            round_trip=owed.round_trip,
            pace=owed.pace,
            is_locked_out=lambda: self.local_control,
            hardware=self.hardware,
            graph_revision=self._graph_revision,
            now_ms=self._now_ms,
        )
        async with trio.open_nursery() as nursery:
            await nursery.start(commands.run)
            nursery.start_soon(state.run)
            nursery.start_soon(leases.run)
            nursery.start_soon(tasks.run)
            nursery.start_soon(owed.run)
            nursery.start_soon(self._tell_local_control)
            nursery.start_soon(self._watch_link)
            nursery.start_soon(self.hardware.run)
            task_status.started()
            if config.post_every_s is None:
                await self._keep_connected(needs)
            else:
                every_s = config.post_every_s
                await TelemetryPosts(outbox, self._snapshots, owed.hub, every_s=every_s, chance=self._chance).run()

    def _open_link(self, token: str) -> AbstractAsyncContextManager[Link]:
        return open_link(
            self._config.url,
            token=token,
            connect_timeout_s=self._config.connect_timeout_s,
            disconnect_timeout_s=self._config.disconnect_timeout_s,
            ssl_context=self._config.ssl_context,
        )

    async def _keep_connected(self, needs: SessionNeeds) -> None:
        self._down.set()
        while True:
            self._welcomed_at = None
            end = await self._one_link(needs)
            self.last_end = end
            lasted_s = 0.0
            if self._welcomed_at is not None:
                lasted_s = trio.current_time() - self._welcomed_at
                self._up = trio.Event()
                self._down.set()
            comeback = self._comebacks.after(end, lasted_s=lasted_s)
            self._advice = advice(end) if comeback.is_late else None
            about = {"code": end.code, "status": end.status, "advice": self._advice}
            log.warning("no link: %s Coming back in %.1f s.", end, comeback.in_s, extra=about)
            self.coming_back_in_s = comeback.in_s
            await trio.sleep(comeback.in_s)
            self.coming_back_in_s = None

    async def _one_link(self, needs: SessionNeeds) -> LinkEnded:
        """From the token to the end of the link, and how it ended."""
        end = LinkEnded("The link ended.")
        try:
            token = await self._token()
            async with self._connect(token.value) as link:
                end = await self._converse(link, token, needs)
        except LinkEnded as error:
            return end if end.code is not None else error
        return end

    async def _converse(self, link: Link, token: Token, needs: SessionNeeds) -> LinkEnded:
        try:
            welcome = await greet(link, await self._hello(needs.outbox))
            return await self._live(link, welcome, token, needs)
        except LinkEnded as end:
            return end
        except LinkClosed as closed:
            return LinkEnded.of(closed)
        except sqlite3.Error:
            log.exception("the journal of the node cannot be written")
            return LinkEnded("The node's own journal failed.")

    async def _live(self, link: Link, welcome: Welcome, token: Token, needs: SessionNeeds) -> LinkEnded:
        self._welcomed_at = trio.current_time()
        arrivals = Arrivals(highest_epoch=max(welcome.epoch, self._known_state().now.last_epoch), now_ms=self._now_ms)
        arrivals.measure(welcome.t_ms)
        await self._known_state().take_welcome(welcome)
        outbox = needs.outbox
        if welcome.acked_seq > outbox.last_seq or welcome.acked_seq < outbox.acked:
            log.warning(
                "the hub's cursor does not fit the outbox; numbering anew",
                extra={"hub": welcome.acked_seq, "acked": outbox.acked, "last": outbox.last_seq},
            )
            await outbox.start_anew(hub_has=welcome.acked_seq)
            return LinkEnded("The outbox was numbered anew and needs a new hello.")
        session = Session(link, welcome, arrivals=arrivals, token=token, needs=needs)
        self._session = session
        self._down = trio.Event()
        self._up.set()
        self._running_work().linked()
        self.hardware.told(welcome.graph_revision)
        log.info("linked", extra={"epoch": welcome.epoch, "session_uid": str(welcome.session_uid)})
        try:
            return await session.run()
        finally:
            self._session = None

    async def _token(self) -> Token:
        try:
            return as_token(await self._config.token())
        except Exception as error:  # the provider is not ours; without a token there is no link, and that is all
            raise LinkEnded(f"No token to connect with: {error}.") from error

    async def _hello(self, outbox: Outbox) -> Hello:
        state = self._known_state().now
        try:
            results = await outbox.command_ids(at_most=RESULTS_IN_HELLO)
        except sqlite3.Error:
            log.exception("the journal of the node cannot be read")
            results = []  # a hint only; the link matters more
        return Hello(
            install_id=self._config.install_id,
            instance_uid=state.instance_uid,
            node_type=self._config.node_type,
            software_version=self._config.software_version,
            boot_id=self._boot_id,
            outbox_uid=outbox.outbox_uid,
            features=self._config.features,
            graph_revision=self._graph_revision(),
            last_epoch=state.last_epoch,
            last_fences=dict(state.last_fences),
            results=tuple(results),
        )

    def _graph_revision(self) -> int | None:
        """What the program says of a copy of its own, or else that of ours."""
        said = self._config.graph_revision
        return self.hardware.revision if said is None else said

    def _known_state(self) -> KeptState:
        if self._state is None:
            raise RuntimeError("The client is not running.")
        return self._state

    # Handlers that are not ours.

    def _command_undone(self, command_id: CommandId) -> None:
        if self._session is not None:
            self._session.command_undone(command_id)

    async def _publish_full_state(self) -> None:
        if self._full_state is None:
            return
        try:
            await self._full_state()
        except Exception:  # it ends this publishing and nothing else
            log.exception("publishing the full state failed")

    async def _tell_local_control(self) -> None:
        while True:
            await self._local_control.changed()
            await self._publish_full_state()

    async def _watch_link(self) -> None:
        while True:
            await self._down.wait()
            revoked = self.last_end is not None and self.last_end.code == CloseCode.REVOKED
            with trio.move_on_after(0 if revoked else self._config.link_loss_after_s) as patience:
                await self._up.wait()
            if patience.cancelled_caught:
                await self._follow_link_loss_policy()
                await self._up.wait()

    async def _follow_link_loss_policy(self) -> None:
        policy = self._known_state().now.link_loss_policy
        if policy is None or self._link_lost is None:
            return
        log.warning("the link has been lost for too long; following the policy %s", policy.value)
        try:
            await self._link_lost(policy)
        except Exception:  # it ends this attempt and nothing else
            log.exception("following the link-loss policy failed")
