"""The node client for programs that are not Trio, beside COM drivers or in a threaded service.

Trio runs in a thread of its own; handlers run in worker threads and block as they like.
"""

import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar
from uuid import UUID

import trio

from skygw.client.blocking_caller import BlockingAnswer, BlockingCaller
from skygw.client.commands import Command, CommandOutcome
from skygw.client.config import NodeConfig
from skygw.client.direct import DirectCall
from skygw.client.following import Followed, Following
from skygw.client.node import LeaseOver, LinkEnded, LinkLossPolicy, LinkStatus, NodeClient, TaskChanged
from skygw.protocol.node_frames import SnapshotStream
from skygw.protocol.streams import StreamFilter, StreamName

__all__ = ["BlockingAnswer", "BlockingCall", "BlockingCaller", "BlockingCommand", "BlockingFollowing", "BlockingNode"]

log = logging.getLogger("skygw.client")

T = TypeVar("T")

OPERATION_THREADS = 16
COMMAND_THREADS = 32
SAFING_THREADS = 16
"""A budget of its own: a stop waits for no thread that another command holds."""


class BlockingCall:
    """A direct call as a blocking handler sees it. Its methods raise `trio.Cancelled` when nobody waits any more:
    let that pass through.
    """

    def __init__(self, call: DirectCall) -> None:
        self._call = call
        self.operation = call.operation
        self.params = call.params
        self.offset = call.offset
        self.length = call.length
        self.if_digest = call.if_digest

    def start(
        self, content_type: str, *, total_size: int | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        trio.from_thread.run(lambda: self._call.start(content_type, total_size=total_size, metadata=metadata))

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Blocks while the caller's credit is used up."""
        trio.from_thread.run(self._call.send, data)

    def check_cancelled(self) -> None:
        """Raises `trio.Cancelled` when nobody waits any more."""
        trio.from_thread.check_cancelled()


class BlockingCommand:
    """A command as a blocking handler sees it. A thread cannot be interrupted: look at `cancel_requested` often."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self.id = command.id
        self.type = command.type
        self.body = command.body
        self.telescope_uid = command.telescope_uid
        self.device_uid = command.device_uid
        self.safing = command.safing

    @property
    def cancel_requested(self) -> bool:
        return self._command.cancel_requested.is_set()

    def wait_cancel(self, timeout_s: float) -> bool:
        """Blocks until a cancel comes, at most `timeout_s`; whether it came. In place of `time.sleep`."""

        async def wait() -> bool:
            with trio.move_on_after(timeout_s):
                await self._command.cancel_requested.wait()
            return self._command.cancel_requested.is_set()

        try:
            return trio.from_thread.run(wait)
        except trio.Cancelled:
            return True  # the hard end of a cancel: the handler must come to its end now and say what it found

    def report(self, outcome: CommandOutcome) -> None:
        """What stands if the handler is ended by an exception of a cancel."""
        self._command.report(outcome)

    def progress(self, fraction: float, *, more_time_ms: int | None = None) -> float:
        """As `Command.progress`. Raises `trio.Cancelled` after the hard end of a cancel."""
        return trio.from_thread.run(lambda: self._command.progress(fraction, more_time_ms=more_time_ms))


class BlockingFollowing:
    """A stream that is followed, for any thread; also when the node has ended: what is known grows old."""

    def __init__(self, following: Following, node: "BlockingNode") -> None:
        self._following = following
        self._node = node

    @property
    def news(self) -> int:
        """Grows with everything that comes."""
        return self._following.news

    @property
    def live(self) -> bool:
        """See `Following.live`."""
        return self._following.live

    @property
    def problem(self) -> str | None:
        """See `Following.problem`."""
        return self._following.problem

    def fresh_or_none(self, uid: UUID | str, max_age_s: float) -> Followed | None:
        """See `Following.fresh_or_none`."""
        return self._following.fresh_or_none(uid, max_age_s)

    def wait_changed(self, since: int, *, timeout_s: float) -> bool:
        """Whether `news` is beyond `since` within `timeout_s`: read `news` before you look. Raises `NodeStopped`."""

        async def wait() -> bool:
            with trio.move_on_after(timeout_s):
                await self._following.changed(since)
            return self._following.news > since

        return self._node.wait_in_trio(wait)

    def close(self) -> None:
        """See `Following.close`."""
        self._node.in_trio(self._following.close)


BlockingOperation = Callable[[BlockingCall], None]
BlockingCommandHandler = Callable[[BlockingCommand], CommandOutcome]


class NodeStopped(Exception):
    """The node is not running."""


class BlockingNode:
    """A node client for threads. Register, `start`, publish from any thread, `stop`; or a `with` block."""

    def __init__(self, config: NodeConfig) -> None:
        self._client = NodeClient(config)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._trio_token: trio.lowlevel.TrioToken | None = None
        self._scope: trio.CancelScope | None = None
        self._failure: BaseException | None = None
        self._operation_threads = trio.CapacityLimiter(OPERATION_THREADS)
        self._command_threads = trio.CapacityLimiter(COMMAND_THREADS)
        self._safing_threads = trio.CapacityLimiter(SAFING_THREADS)

    # Before `start`.

    def operation(self, name: str, *, effects: str) -> Callable[[BlockingOperation], BlockingOperation]:
        """See `NodeClient.operation`; the handler runs in a worker thread."""

        def register(handler: BlockingOperation) -> BlockingOperation:
            @self._client.operation(name, effects=effects)
            async def run_in_thread(call: DirectCall) -> None:
                await trio.to_thread.run_sync(handler, BlockingCall(call), limiter=self._operation_threads)

            return handler

        return register

    def command_handler(self, handler: BlockingCommandHandler) -> BlockingCommandHandler:
        """See `NodeClient.command_handler`; the handler runs in a worker thread."""

        @self._client.command_handler
        async def run_in_thread(command: Command) -> CommandOutcome:
            threads = self._safing_threads if command.safing else self._command_threads
            return await trio.to_thread.run_sync(handler, BlockingCommand(command), limiter=threads)

        return handler

    def full_state(self, handler: Callable[[], None]) -> Callable[[], None]:
        """Called in a worker thread after every welcome."""

        @self._client.full_state
        async def run_in_thread() -> None:
            await trio.to_thread.run_sync(handler)

        return handler

    def on_link_lost(self, handler: Callable[[LinkLossPolicy], None]) -> Callable[[LinkLossPolicy], None]:
        """Called in a worker thread when the link has been away for too long."""

        @self._client.on_link_lost
        async def run_in_thread(policy: LinkLossPolicy) -> None:
            await trio.to_thread.run_sync(handler, policy, limiter=self._safing_threads)

        return handler

    def on_lease_over(self, handler: Callable[[LeaseOver], None]) -> Callable[[LeaseOver], None]:
        """Called in a worker thread when a lease has run out, or its holder is silent for too long."""

        @self._client.on_lease_over
        async def run_in_thread(over: LeaseOver) -> None:
            await trio.to_thread.run_sync(handler, over, limiter=self._safing_threads)

        return handler

    def on_task_changed(self, handler: Callable[[TaskChanged], None]) -> Callable[[TaskChanged], None]:
        """Called in a worker thread when the hub wants something of a task that was claimed."""

        @self._client.on_task_changed
        async def run_in_thread(said: TaskChanged) -> None:
            await trio.to_thread.run_sync(handler, said, limiter=self._safing_threads)

        return handler

    # Life.

    def start(self) -> None:
        """Returns when durable reports are taken; the link comes by itself. Raises what `NodeClient.run` raises."""
        if self._thread is not None:
            raise RuntimeError("The node was started already.")
        self._thread = threading.Thread(target=self._run, name="skygw-node", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    def stop(self, *, timeout_s: float = 30.0) -> None:
        """Ends the link and waits for handlers to end. Raises what the node ended with, `TimeoutError` when a handler
        does not come back. May be called again.
        """
        if self._thread is None:
            return
        with suppress(NodeStopped):  # it has ended already; what it ended with is raised below
            self.in_trio(self._cancel)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError(f"A handler of the node did not end within {timeout_s:.0f} s.")
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> "BlockingNode":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as error:  # kept, and raised in the thread that starts or stops the node
            self._failure = error
            log.exception("the node ended")
        finally:
            self._ready.set()

    async def _main(self) -> None:
        self._trio_token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as self._scope:
            failure: Exception | None = None
            try:
                async with trio.open_nursery() as nursery:
                    await nursery.start(self._client.run)
                    self._ready.set()
            except* Exception as group:  # noqa: BLE001 - unwrapped and raised again below
                failure = group.exceptions[0] if len(group.exceptions) == 1 else group
            if failure is not None:
                raise failure

    def _cancel(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    def in_trio(self, work: Callable[[], T]) -> T:
        """Does it in the node's thread, now. Raises `NodeStopped`."""
        if self._trio_token is None:
            raise NodeStopped("The node is not running.")
        try:
            return trio.from_thread.run_sync(work, trio_token=self._trio_token)
        except trio.RunFinishedError:
            raise NodeStopped("The node has ended.") from None

    def wait_in_trio(self, work: Callable[[], Awaitable[T]]) -> T:
        """Waits for it in the node's thread. Raises `NodeStopped`."""
        if self._trio_token is None:
            raise NodeStopped("The node is not running.")
        try:
            return trio.from_thread.run(work, trio_token=self._trio_token)
        except (trio.RunFinishedError, trio.Cancelled):
            raise NodeStopped("The node has ended.") from None

    # Publishing and looking, from any thread.

    @property
    def connected(self) -> bool:
        return self._client.connected

    @property
    def last_end(self) -> LinkEnded | None:
        return self._client.last_end

    @property
    def status(self) -> LinkStatus:
        """See `NodeClient.status`."""
        return self._client.status

    @property
    def local_control(self) -> bool:
        return self._client.local_control

    def set_local_control(self, taken: bool) -> None:
        """See `NodeClient.set_local_control`; also before `start`. Raises `NodeStopped` when the node has ended."""
        if self._trio_token is None:
            self._client.set_local_control(taken)
        else:
            self.in_trio(lambda: self._client.set_local_control(taken))

    def wait_connected(self, timeout_s: float) -> bool:
        """Whether the gateway said welcome within `timeout_s`."""

        async def wait() -> bool:
            with trio.move_on_after(timeout_s):
                await self._client.wait_connected()
            return self._client.connected

        return self.wait_in_trio(wait)

    def follow(
        self,
        stream: StreamName | str,
        *,
        filter: StreamFilter | dict[str, Any] | None = None,  # noqa: A002 - the protocol's word
        max_rate_hz: float | None = None,
    ) -> BlockingFollowing:
        """See `NodeClient.follow`."""

        def follow() -> Following:
            return self._client.follow(stream, filter=filter, max_rate_hz=max_rate_hz)

        return BlockingFollowing(follow() if self._thread is None else self.in_trio(follow), self)

    def publish_snapshot(
        self,
        stream: SnapshotStream,
        data: dict[str, Any],
        *,
        max_silence_s: float | None = None,
        observed_at: datetime | None = None,
    ) -> None:
        self.in_trio(
            lambda: self._client.publish_snapshot(stream, data, max_silence_s=max_silence_s, observed_at=observed_at)
        )

    def publish_log(self, data: dict[str, Any], *, observed_at: datetime | None = None) -> int | None:
        """On disk when this returns. See `NodeClient.publish_log`."""
        return self._durable(self._client.publish_log, data, observed_at)

    def publish_event(self, data: dict[str, Any], *, observed_at: datetime | None = None) -> int | None:
        """On disk when this returns. See `NodeClient.publish_event`."""
        return self._durable(self._client.publish_event, data, observed_at)

    def _durable(self, publish: Any, data: dict[str, Any], observed_at: datetime | None) -> int | None:
        async def work() -> int | None:
            seq: int | None = await publish(data, observed_at=observed_at)
            return seq

        return self.wait_in_trio(work)
