"""One accepted socket from first byte to last: the shell around the protocol, and how patient it is."""

import socket
import ssl
from typing import Any

import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.worker_context import WorkerContext

from skygw.serving.asgi import App
from skygw.serving.config import ListenerConfig
from skygw.serving.ends import End, Ending, PeerFaultError
from skygw.serving.exchange import Exchanges
from skygw.serving.handle import ConnectionHandle
from skygw.serving.hypercorn_seam import Awaiting, Ends, Http11
from skygw.serving.places import ClientPlace, Places
from skygw.turnstile import Turnstile
from skygw.websocket import (
    Code,
    ConnectionLost,
    Fault,
    LinkClosed,
    NotReading,
    Patience,
    PlainTransport,
    Rhythm,
    TlsTransport,
    WebSocket,
)

SLOW_AFTER_S = 1.0
LINGER_READS = 64  # at 64 KiB each, 4 MiB are read and forgotten after our last byte

_ENDS = {Fault.BROKE_A_RULE: End.PROTOCOL, Fault.DOES_NOT_READ: End.NOT_READING, Fault.GONE: End.GONE}


class Connection:
    """Owns the socket. Its reader is the task that called `run`; that task and the app's write.

    Nothing here raises for what a peer does: that is in `ending` once `run` is over. What does come out of
    `run` is a fault of ours.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        peer: tuple[str, int],
        config: ListenerConfig,
        tls: ssl.SSLContext | None,
        places: Places,
        partings: Turnstile,
    ) -> None:
        """`sock` is accepted and does not block, and has one of `places`. A WebSocket whose peer has gone ends when it
        has passed `partings`.
        """
        patience = Patience(stalled_s=config.send_timeout_s, min_bytes_per_s=config.send_min_bytes_per_s)
        self._transport: PlainTransport | TlsTransport = (
            PlainTransport(sock, patience) if tls is None else TlsTransport.serving(sock, tls, patience)
        )
        self._peer = peer
        host, port = sock.getsockname()[:2]
        self._here: tuple[str, int] = (host, port)
        self._config = config
        self._partings = partings
        self._places = places
        self._place = ClientPlace(places, config, peer=peer[0])
        self._linger_s = config.linger_s
        self._ending: Ending | None = None
        self._is_open = True
        self._everything = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._waiting = trio.CancelScope()
        self._keeping = trio.CancelScope()
        self._write_lock = trio.Lock()
        self._protocol: Http11 | None = None
        self._handle: ConnectionHandle | None = None
        self._is_upgrading = False
        self._upgraded = trio.Event()
        self._websocket: WebSocket | None = None
        self._last_received_at = trio.current_time()
        self._head_begun = False
        self._head_deadline = trio.current_time() + config.header_timeout_s
        self._body_waited_s = 0.0

    @property
    def peer(self) -> tuple[str, int]:
        """Address and port of the socket's other end."""
        return self._peer

    @property
    def ending(self) -> Ending:
        """Why it ended; `aborted` for one that was cancelled from outside."""
        return self._ending or Ending(End.ABORTED)

    async def run(self, app: App, *, context: WorkerContext, state: dict[str, Any]) -> None:
        """Serve until the connection ends. Cancelling resets it."""
        try:
            with self._everything:
                await self._shake_hands()
                async with trio.open_nursery() as apps:
                    await self._converse(self._make_protocol(app, context, state, apps))
        except PeerFaultError as fault:
            self._end(fault.ending)
        finally:
            self._is_open = False
            self._place.leave()
            self._transport.abort()

    def abort(self, ending: Ending | None = None) -> None:
        """Reset the socket now, from any task; the app is told through its disconnect."""
        self._end(ending or Ending(End.ABORTED))
        self._is_open = False
        self._transport.abort()
        self._reading.cancel()
        if self._websocket is not None:
            self._websocket.abort()

    def kill(self, ending: Ending) -> None:
        """Abort, and cancel the app as well."""
        self.abort(ending)
        self._everything.cancel()

    def end_if_idle(self) -> None:
        """Close cleanly if the peer rests between requests; a busy one is left alone."""
        if self._protocol is None:
            self.kill(Ending(End.DRAINED))
        elif self._protocol.awaiting is Awaiting.HEAD and not self._head_begun:
            self._hang_up(Ending(End.DRAINED))

    def give_way(self) -> bool:
        """Close at once if the peer rests between requests, because somebody else wants the place."""
        if not self._is_open or self._protocol is None or self._protocol.awaiting is not Awaiting.HEAD:
            return False
        if self._head_begun:
            return False
        self._linger_s = 0.0
        self._hang_up(Ending(End.GAVE_WAY))
        return True

    async def say_going(self, *, after_s: float) -> None:
        """Tell a WebSocket that its server goes away, to come back soon (1012), unless its app says goodbye itself
        within `after_s`. Bounded by the send deadline.
        """
        if self._websocket is not None:
            with trio.move_on_after(after_s):
                await self._websocket.ended.wait()
            try:
                await self._websocket.close(Code.SERVICE_RESTART, "the service is being restarted")
            except LinkClosed:
                await trio.lowlevel.checkpoint()  # has gone by itself

    # --- the life of the connection, in the task of `run`

    async def _shake_hands(self) -> None:
        if not isinstance(self._transport, TlsTransport):
            return
        try:
            with trio.fail_after(self._config.tls_handshake_timeout_s):
                await self._transport.shake_hands()
        except trio.TooSlowError:
            raise PeerFaultError(End.TLS, "the TLS handshake took too long") from None
        except ConnectionLost as error:
            raise PeerFaultError(End.TLS, f"the TLS handshake failed: {error}") from error

    def _make_protocol(self, app: App, context: WorkerContext, state: dict[str, Any], apps: trio.Nursery) -> Http11:
        self._handle = ConnectionHandle(
            listener=self._config.name,
            peer=self._peer,
            abort=self.abort,
            is_open=lambda: self._is_open,
            last_received_at=lambda: self._last_received_at,
        )
        self._protocol = protocol = Http11(
            app,
            self._config,
            context=context,
            exchanges=Exchanges(apps, self._handle, before_receive=self._send_continue),
            state=state,
            ends=Ends(peer=self._peer, here=self._here, is_tls=isinstance(self._transport, TlsTransport)),
            send=self._take,
            upgrade=self._upgrade,
            place=self._place,
        )
        return protocol

    async def _upgrade(self) -> WebSocket:
        """In the app's task, which reads from now on: the reader has let go of the socket when this returns, with what
        it had read last, and keeps the link alive instead.
        """
        self._is_upgrading = True
        self._reading.cancel()
        await self._upgraded.wait()
        assert self._websocket is not None  # noqa: S101 - set before the event
        return self._websocket

    def _make_websocket(self, early: bytes) -> WebSocket:
        config = self._config
        websocket = WebSocket(
            self._transport,
            is_client=False,
            max_message_bytes=config.websocket_max_message_bytes,
            rhythm=Rhythm(config.websocket_ping_after_s, config.websocket_gone_after_s),
            violation_code=config.websocket_violation_code,
            unread=early,
            parting=self._partings.passed,
        )
        if self._handle is not None:
            self._handle.websocket = websocket
        return websocket

    async def _converse(self, protocol: Http11) -> None:
        try:
            with self._reading:
                await self._read_to_the_end(protocol)
        except PeerFaultError as fault:
            self._end(fault.ending)
        if self._is_upgrading:
            self._websocket = self._make_websocket(protocol.early)
            self._upgraded.set()
            await self._keep(self._websocket)
        self._is_open = False
        await protocol.handle(Closed())  # tells the app
        if protocol.answer_is_cut or (self._websocket is not None and self._websocket.is_in_use):
            self._transport.abort()  # which wakes its users: a connection that ended under them has no last words
        else:
            await self._leave()

    async def _keep(self, websocket: WebSocket) -> None:
        """Until the link has ended, or the app has."""
        with self._keeping:
            await websocket.keep()
        if websocket.fault is not None:
            self._end(Ending(_ENDS[websocket.fault], f"WebSocket: {websocket.close_reason}"))
        elif websocket.ended.is_set():
            self._end(Ending(End.PEER_LEFT if websocket.close_code is None else End.FINISHED))

    async def _read_to_the_end(self, protocol: Http11) -> None:
        while True:
            try:
                data = await self._receive(protocol)
            except ConnectionLost:
                data = b""
            if not data:
                self._end(Ending(End.PEER_LEFT))
                return
            await protocol.handle(RawData(data))
            if protocol.awaiting is Awaiting.HEAD and protocol.has_partial_head and not self._head_begun:
                self._head_begun = True
                self._head_deadline = trio.current_time() + self._config.header_timeout_s

    async def _receive(self, protocol: Http11) -> bytes:
        began = trio.current_time()
        data: bytes | None = None
        with trio.CancelScope(deadline=self._read_deadline(protocol)) as self._waiting:
            data = await self._transport.receive()
            self._last_received_at = trio.current_time()
            if protocol.awaiting is Awaiting.BODY:
                self._body_waited_s += trio.current_time() - began
        if self._is_slow(protocol):
            await self._places.turn()
        if data is not None:
            return data
        if protocol.awaiting is Awaiting.BODY:
            await protocol.refuse(408, "The body comes too slowly.", why=End.SLOW_BODY)
        if self._head_begun:
            await protocol.refuse(408, "The request head comes too slowly.", why=End.SLOW_HEADER)
        self._end(Ending(End.IDLE))
        return b""

    def _is_slow(self, protocol: Http11) -> bool:
        """Its request has taken longer to come than a whole one takes on any line."""
        if protocol.awaiting is Awaiting.BODY:
            return self._body_waited_s > SLOW_AFTER_S
        began_at = self._head_deadline - self._config.header_timeout_s
        return self._head_begun and trio.current_time() > began_at + SLOW_AFTER_S

    def _read_deadline(self, protocol: Http11) -> float:
        """In trio's clock. A WebSocket's silence is its session's affair, an answer's time the app's."""
        if protocol.awaiting is Awaiting.HEAD:
            return self._head_deadline
        if protocol.awaiting is Awaiting.BODY:
            earned = self._config.body_grace_s + protocol.body_bytes / self._config.body_min_bytes_per_s
            return trio.current_time() + min(self._config.body_idle_timeout_s, earned - self._body_waited_s)
        return float("inf")

    async def _leave(self) -> None:
        """Say that we are done, then read what still comes for a moment.

        Closing over unread bytes would reset the connection and take our last answer away from the peer.
        """
        with trio.move_on_after(self._linger_s):
            async with self._write_lock:  # the app may still be in the middle of a write
                try:
                    await self._transport.send_end()
                    for _ in range(LINGER_READS):
                        if not await self._transport.receive():
                            break
                except ConnectionLost:
                    return
        self._transport.close()

    # --- what the protocol asks of the shell, in the reader's or the app's task

    async def _take(self, event: Event) -> None:
        # By its type: upstream's events are abstract classes, whose `isinstance` is slow.
        if type(event) is RawData:
            if event.data:  # the end of a sized body has none
                await self._write(event.data)
        elif type(event) is Updated:
            self._next_phase(is_idle=event.idle)
        elif type(event) is Closed:
            self._hang_up(Ending(End.FINISHED))

    def _next_phase(self, *, is_idle: bool) -> None:
        self._head_begun = False
        self._body_waited_s = 0.0
        if not is_idle:
            self._places.works(self)
        else:
            self._places.rests(self, self._peer[0])
            # The reader may already be waiting, with the patience of the exchange that has just ended.
            self._head_deadline = trio.current_time() + self._config.keep_alive_timeout_s
            self._waiting.deadline = self._head_deadline

    async def _send_continue(self) -> None:
        if self._protocol is not None and self._is_open and self._protocol.owes_continue:
            await self._protocol.send_continue()
            # The reader is already waiting, for nothing in particular: from now on it waits for a body.
            self._waiting.deadline = self._read_deadline(self._protocol)

    async def _write(self, data: bytes) -> None:
        """Hand bytes to the socket, in order. Raises nothing for what the peer does: the connection ends.

        Cancelling a write that has begun resets the connection: nobody could tell what follows from the rest of it.
        """
        try:
            self._write_lock.acquire_nowait()
        except trio.WouldBlock:
            await self._write_lock.acquire()
        transport, before = self._transport, self._transport.begun
        try:
            if self._is_open:
                await transport.send(data)
            else:
                await trio.lowlevel.checkpoint()  # an app that sends in a loop must not freeze the others
        except NotReading as error:
            self.abort(Ending(End.NOT_READING, str(error)))
        except ConnectionLost:
            self._hang_up(Ending(End.PEER_LEFT))
        except trio.Cancelled:
            if transport.begun != before:
                self.abort()
            raise
        finally:
            self._write_lock.release()

    def _hang_up(self, ending: Ending) -> None:
        """Stop reading; the reader's task then tells the app and closes."""
        self._end(ending)
        self._is_open = False
        self._reading.cancel()
        self._keeping.cancel()

    def _end(self, ending: Ending) -> None:
        if self._ending is None:
            self._ending = ending
