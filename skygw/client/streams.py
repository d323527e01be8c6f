"""What a hub service on Trio embeds to follow streams: one socket for all its subscriptions, resumed when it breaks."""

import logging
import random
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import trio

from skygw.client.comeback import Comebacks
from skygw.client.config import Token, TokenProvider
from skygw.client.latest import Latest, LatestValues
from skygw.client.link import Link, LinkEnded, open_link
from skygw.client.stream_items import Away, Changed, Ended, Gap, Item, Live, Stale, Unreadable
from skygw.client.stream_session import StreamSession, as_token
from skygw.client.subscription import Subscription
from skygw.protocol.limits import MIB
from skygw.protocol.streams import StreamFilter, StreamName, StreamOptions
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.websocket import LinkClosed

__all__ = [
    "Away",
    "Changed",
    "Ended",
    "Gap",
    "Item",
    "Latest",
    "LatestValues",
    "Live",
    "Stale",
    "StreamClient",
    "StreamFilter",
    "StreamName",
    "Subscription",
    "Token",
    "Unreadable",
]

log = logging.getLogger("skygw.client")

STREAM_PATH = "/internal/ws/stream"

MAX_MESSAGE_BYTES = 9 * MIB
"""An instrument is told with the snapshots of all its devices, and an installation may have 8 MiB of these."""

Connector = Callable[[str], AbstractAsyncContextManager[Link]]
"""Opens a link with a token. Raises `LinkEnded`."""


class StreamClient:
    """Start `run` in a nursery, and `subscribe`, before or after. Everything here belongs to one Trio thread.

    All subscriptions share a socket: one that is not read stops the others too. What must not wait for it needs a
    client of its own.
    """

    def __init__(
        self,
        base_url: str,
        token: str | TokenProvider,
        *,
        ssl_context: ssl.SSLContext | None = None,
        connect_timeout_s: float = 20.0,
        disconnect_timeout_s: float = 0.5,
        connect: Connector | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """`base_url` is that of the internal listener, `http://…` or `https://…`; anything else is a `ValueError`, and
        so is a token that no header can carry. White space around a token, as of a file, is not part of it.

        A token that is given as text stays the same: refused, it is tried again late, and `Away` asks for a person.
        A provider is asked before each connect. If it says how long its tokens live, they are renewed on the socket in
        time; otherwise the socket ends with the token, and what was subscribed is resumed on the next.
        """
        self._url = stream_url(base_url)
        self._token_provider = token if callable(token) else _always(_checked(token))
        self._ssl_context = ssl_context
        self._connect_timeout_s = connect_timeout_s
        self._disconnect_timeout_s = disconnect_timeout_s
        self._connect = connect or self._open_link
        self._chance = chance
        self._comebacks = Comebacks(chance, one_token=not callable(token))
        self._subscriptions: dict[Subscription, None] = {}
        self._session: StreamSession | None = None
        self._connected_at: float | None = None
        self._away: Away | None = None

    @property
    def connected(self) -> bool:
        return self._session is not None

    @asynccontextmanager
    async def subscribe(
        self,
        stream: StreamName | str,
        *,
        filter: StreamFilter | dict[str, Any] | None = None,  # noqa: A002 - the protocol's word
        after: str | None = None,
        include_existing: bool = True,
        include_unchanged: bool = False,
        max_rate_hz: float | None = None,
        fields: Sequence[str] | None = None,
        tell_beats: bool = False,
    ) -> AsyncIterator[Subscription]:
        """Follows a stream until the block is left. `filter` and the options are those of the protocol. With
        `tell_beats` each beat of the gateway is a `Live` too: for whoever hands every message on.

        Raises `ValueError` for what no gateway would take; what this one does not take is said by the
        item `Ended`. Entering does not wait for the gateway.
        """
        wanted = StreamFilter.model_validate(filter or {})
        options = StreamOptions(
            include_existing=include_existing,
            after=after,
            max_rate_hz=max_rate_hz,
            fields=None if fields is None else tuple(fields),
            include_unchanged=include_unchanged,
        )
        subscription = Subscription(StreamName(stream), wanted, options, tell_beats=tell_beats)
        self._subscriptions[subscription] = None
        if self._away is not None:
            subscription.lose(self._away)
        if self._session is not None:
            self._session.wake()
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            yield subscription
        finally:
            del self._subscriptions[subscription]
            subscription.close()
            if self._session is not None:
                self._session.forget(subscription)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connects and reconnects until cancelled; never raises for what the gateway does."""
        task_status.started()
        while True:
            self._connected_at = None
            end = await self._one_link()
            lasted_s = 0.0
            if self._connected_at is not None:
                lasted_s = trio.current_time() - self._connected_at
            comeback = self._comebacks.after(end, lasted_s=lasted_s)
            about = {"code": end.code, "status": end.status, "lasted_s": round(lasted_s, 1)}
            log.warning("no streams: %s Coming back in %.1f s.", end, comeback.in_s, extra=about)
            self._lose(
                Away(
                    reason=str(end),
                    again_in_s=comeback.in_s,
                    needs_attention=comeback.is_late,
                    status=end.status,
                    code=end.code,
                )
            )
            await trio.sleep(comeback.in_s)

    def _lose(self, away: Away) -> None:
        self._away = away
        for subscription in self._subscriptions:
            subscription.lose(away)

    async def _one_link(self) -> LinkEnded:
        """From the token to the end of the link, and how it ended."""
        end = LinkEnded("The link ended.")
        try:
            token = await self._token()
            async with self._connect(token.value) as link:
                end = await self._converse(link, token)
        except LinkClosed as closed:
            return end if end.code is not None else LinkEnded.of(closed)
        except LinkEnded as error:
            return end if end.code is not None else error
        return end

    async def _converse(self, link: Link, token: Token) -> LinkEnded:
        session = StreamSession(
            link, self._subscriptions.keys(), token=token, token_provider=self._token_provider, chance=self._chance
        )
        self._session = session
        self._away = None
        self._connected_at = trio.current_time()
        try:
            return await session.run()
        finally:
            self._session = None

    async def _token(self) -> Token:
        try:
            return as_token(await self._token_provider())
        except Exception as error:  # the provider is not ours; without a token there is no link, and that is all
            raise LinkEnded(f"No token to connect with: {error}.") from error

    def _open_link(self, token: str) -> AbstractAsyncContextManager[Link]:
        return open_link(
            self._url,
            token=token,
            connect_timeout_s=self._connect_timeout_s,
            disconnect_timeout_s=self._disconnect_timeout_s,
            ssl_context=self._ssl_context,
            subprotocol=SUBSCRIBER_SUBPROTOCOL,
            max_message_bytes=MAX_MESSAGE_BYTES,
        )


def stream_url(base_url: str) -> str:
    """The stream socket of a gateway by its internal base URL. Raises `ValueError`."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"The gateway's address must begin with http:// or https:// and name a host: {base_url!r}")
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{STREAM_PATH}"


def _checked(token: str) -> str:
    token = token.strip()
    if not token:
        raise ValueError("The token is empty.")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ValueError("The token holds characters that no header can carry.")
    return token


def _always(token: str) -> TokenProvider:
    async def provider() -> str:
        return token

    return provider
