"""One listening socket, its connections, and how they end."""

import errno
import logging
import socket
import ssl
from functools import partial

import trio
from hypercorn.trio.worker_context import WorkerContext

from skygw.errors import StartupError
from skygw.serving.asgi import App
from skygw.serving.binding import listening_socket, tls_context
from skygw.serving.config import ListenerConfig, refuse_open_cleartext
from skygw.serving.connection import Connection
from skygw.serving.ends import End, Ending, Refusal
from skygw.serving.lifespan import Lifespan
from skygw.serving.metrics import ConnectionMetrics
from skygw.serving.places import Places
from skygw.serving.sparing_log import SparingLog
from skygw.turnstile import Turnstile
from skygw.websocket import tune

logger = logging.getLogger("skygw.serving")

OUT_OF_FILES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
OUT_OF_FILES_PAUSE_S = 0.1
BROKEN_LISTENER = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EFAULT})
ACCEPTED_AT_ONCE = 8
LONGEST_PAUSE_S = 0.05
PARTING_AT_ONCE = 4
PARTING_PAUSE_TURNS = 2  # so many WebSockets whose peers have gone end in so many turns: it may be all of them at once
REFUSALS_LOGGED_EVERY_S = 10.0
LAST_WORDS_S = 1.0  # what a session may use to say its own goodbye to its WebSocket
KILLED_GONE_S = 1.0  # what an app may still use for its clean-up after it was cancelled


class Listener:
    """Accepts, guards and ends connections. Whatever happens in one of them happens to no other.

    Bound by `bind`, before the event loop if wanted; served by `run`, once.
    """

    def __init__(
        self,
        config: ListenerConfig,
        listening: socket.socket,
        *,
        tls: ssl.SSLContext | None,
        metrics: ConnectionMetrics,
    ) -> None:
        self._config = config
        self._listening = listening
        self._tls = tls
        self._metrics = metrics
        host, port = listening.getsockname()[:2]
        self.address: tuple[str, int] = (host, port)
        self._is_accepting = False
        self._connections: set[Connection] = set()
        self._places = Places(config, refused=self._note_refusal)
        self._partings = Turnstile(pause_turns=PARTING_PAUSE_TURNS, at_once=PARTING_AT_ONCE)
        self._departures = trio.lowlevel.ParkingLot()
        self._context = WorkerContext(max_requests=None)
        self._sparing_log = SparingLog(logger)
        self._refused_unlogged = 0
        self._refusals_logged_at = float("-inf")

    @classmethod
    def bind(cls, config: ListenerConfig, *, metrics: ConnectionMetrics) -> "Listener":
        """Bind and listen now. Raise `StartupError` with one sentence if that cannot or must not be."""
        refuse_open_cleartext(config)
        tls = None if config.tls is None else tls_context(config.tls)
        return cls(config, listening_socket(config), tls=tls, metrics=metrics)

    @property
    def connection_count(self) -> int:
        """Connections now open, or gone with their app still running."""
        return len(self._connections)

    async def run(self, app: App, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; ready when the app has started. Raise `StartupError` if it does not start.

        Cancelling resets every connection and then ends the app's lifespan. For a clean end call
        `stop_accepting` and `end_connections` first. If the app's lifespan call fails later, so does this:
        nothing is served by half.
        """
        lifespan = Lifespan(app, listener=self._config.name)
        failure: StartupError | None = None
        try:
            async with trio.open_nursery() as nursery:
                try:
                    await nursery.start(lifespan.run)
                except StartupError as error:
                    failure = error
                else:
                    await self._serve_until_cancelled(app, lifespan, task_status)
        finally:
            self.stop_accepting()
        if failure is not None:
            raise failure

    async def _serve_until_cancelled(self, app: App, lifespan: Lifespan, task_status: trio.TaskStatus[None]) -> None:
        try:
            async with trio.open_nursery() as connections:
                self._is_accepting = True
                task_status.started()
                await self._accept_all(app, lifespan, connections)
                await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await lifespan.shutdown()  # bounded by its own deadline

    def stop_accepting(self) -> None:
        """Close the listening socket; connections stay. Idempotent."""
        if self._is_accepting:
            self._is_accepting = False
            trio.lowlevel.notify_closing(self._listening)
        self._listening.close()

    async def end_connections(self, *, within_s: float) -> None:
        """End all: resting connections now, busy ones after their answer, the rest after `within_s` by reset.

        Always returns, at most `KILLED_GONE_S` after that, whatever peers and apps do. WebSockets are told 1012, unless
        their sessions have said goodbye before.
        """
        self.stop_accepting()
        await self._context.terminated.set()  # from now on each answer is its connection's last
        with trio.move_on_after(within_s):
            async with trio.open_nursery() as goodbyes:
                for connection in list(self._connections):
                    connection.end_if_idle()
                    goodbyes.start_soon(partial(connection.say_going, after_s=min(LAST_WORDS_S, within_s / 2)))
                await self._all_gone()
        for connection in list(self._connections):
            connection.kill(Ending(End.DRAINED, f"still busy {within_s:g} s after the drain began"))
        with trio.move_on_after(KILLED_GONE_S):
            await self._all_gone()

    async def _all_gone(self) -> None:
        while self._connections:
            await self._departures.park()

    async def _accept_all(self, app: App, lifespan: Lifespan, nursery: trio.Nursery) -> None:
        """In the order of arrival, a few at a time, and never more than half of the time: who is connected comes first.

        What is not accepted yet waits in the kernel's backlog.
        """
        while self._is_accepting:
            try:
                await trio.lowlevel.wait_readable(self._listening)
            except trio.ClosedResourceError:
                return
            for _ in range(ACCEPTED_AT_ONCE):
                if not self._is_accepting:
                    return
                try:
                    sock, _ = self._listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in BROKEN_LISTENER:
                        raise
                    if error.errno in OUT_OF_FILES:
                        logger.error("%s: cannot accept: %s", self._config.name, error.strerror)  # noqa: TRY400
                        await trio.sleep(OUT_OF_FILES_PAUSE_S)
                        break
                    continue  # an error of that connection, which Linux hands to whoever accepts it (accept(2))
                sock.setblocking(False)
                connection = self._admit(sock)
                if connection is not None:
                    nursery.start_soon(self._guard, connection, app, lifespan)
            began = trio.current_time()
            await trio.lowlevel.checkpoint()
            await trio.sleep(min(trio.current_time() - began, LONGEST_PAUSE_S))

    def _admit(self, sock: socket.socket) -> Connection | None:
        try:
            peer = sock.getpeername()[:2]
            tune(sock)
        except OSError:
            sock.close()  # left again before it was looked at
            return None
        if not self._places.take_connection(peer[0]):
            sock.close()
            return None
        connection = Connection(
            sock, peer=peer, config=self._config, tls=self._tls, places=self._places, partings=self._partings
        )
        self._connections.add(connection)
        self._places.rests(connection, peer[0])  # it has asked nothing yet
        return connection

    def _note_refusal(self, why: Refusal, address: str) -> None:
        """A flood of refusals must not become a flood of log lines."""
        self._metrics.refused(self._config.name, why)
        self._refused_unlogged += 1
        if trio.current_time() >= self._refusals_logged_at + REFUSALS_LOGGED_EVERY_S:
            logger.warning(
                "%s: %d connections or requests refused, the last from %s: %s",
                self._config.name,
                self._refused_unlogged,
                address,
                why,
            )
            self._refused_unlogged = 0
            self._refusals_logged_at = trio.current_time()

    async def _guard(self, connection: Connection, app: App, lifespan: Lifespan) -> None:
        """Nothing leaves here but cancelling."""
        self._metrics.opened(self._config.name)
        is_our_fault = False
        try:
            try:
                await connection.run(app, context=self._context, state=lifespan.state)
            except* Exception as errors:
                is_our_fault = True
                logger.exception(
                    "%s: the connection from %s failed on our side: %s",
                    self._config.name,
                    connection.peer[0],
                    errors.exceptions[0],
                    exc_info=errors,
                )
        finally:
            self._forget(connection, Ending(End.FAULT) if is_our_fault else connection.ending)

    def _forget(self, connection: Connection, ending: Ending) -> None:
        self._connections.discard(connection)
        address = connection.peer[0]
        self._places.give_connection_back(address, connection)
        self._metrics.closed(self._config.name, ending.why)
        self._departures.unpark_all()
        if ending.why.is_peers_fault or (ending.why is End.DRAINED and ending.detail):
            self._sparing_log.warning(
                str(ending.why),
                "%s: the connection from %s was ended: %s",
                self._config.name,
                address,
                ending.detail,
                extra={"listener": self._config.name, "peer": address, "why": str(ending.why)},
            )
