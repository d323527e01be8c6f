"""The node's HTTP door to the gateway: one connection pool, the newest token, and errors as types (contract §4)."""

import math
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import trio

from skygw.client.config import Token, TokenProvider
from skygw.client.problems import rebuilt
from skygw.errors import BadResponse, GatewayError, LinkLost, Outcome

NODE_PATH = "/v1/nodes/"
SOCKET_PATH = "/v1/ws/node"
TIMEOUTS = httpx.Timeout(connect=20.0, read=60.0, write=60.0, pool=None)
"""A write is 16 KiB at most, a read the answer to what was sent whole. Who waits for a connection has no hurry."""

CONNECTIONS = 8
RENEW_AT = 0.75
ASK_AGAIN_S = 300.0
"""How long a token is used of which nobody said how long it holds."""

Record = dict[str, Any]
"""A record as the gateway serves it, camelCase."""


class HubHttp:
    """Use `opened` around it. Everything raises `GatewayError`; without an answer it is `LinkLost`."""

    def __init__(
        self,
        socket_url: str,
        token_provider: TokenProvider,
        *,
        ssl_context: ssl.SSLContext | None = None,
        dialled: tuple[str, int] | None = None,
    ) -> None:
        """`dialled` is the host and port of what carries the bytes to the gateway, if the URL's own are not."""
        self._base = base_url(socket_url)
        self._host = httpx.URL(self._base).netloc.decode("ascii")
        self._dialled = dialled
        self._token_provider = token_provider
        self._ssl_context = ssl_context
        self._client: httpx.AsyncClient | None = None
        self._token: Token | None = None
        self._good_until = -math.inf

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The pool, until the block is left."""
        base = self._base
        if self._dialled is not None:
            host, port = self._dialled
            base = str(httpx.URL(base).copy_with(host=host, port=port))
        async with httpx.AsyncClient(
            base_url=base,
            verify=self._trusted(),
            timeout=TIMEOUTS,
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            headers={"host": self._host, "accept-encoding": "identity"},
            trust_env=False,
        ) as self._client:
            try:
                yield
            finally:
                self._client = None

    def _trusted(self) -> ssl.SSLContext | bool:
        """Nothing is loaded where there is no TLS: a fleet of simulated nodes would load it once for each."""
        if self._base.startswith("http:"):
            return False
        return self._ssl_context or ssl.create_default_context()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        body: str | None = None,
        params: dict[str, str] | None = None,
    ) -> Record:
        """One request whose answer is a JSON object. `path` begins behind `/v1/nodes/`."""
        headers = {} if body is None else {"content-type": "application/json"}
        answer = await self.send(
            method, path, headers=headers, content=None if body is None else body.encode(), params=params
        )
        if answer.status_code == 204:
            return {}
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BadResponse("The gateway answered with something that is no JSON object.", outcome=Outcome.UNKNOWN)
        return found

    async def send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str],
        content: bytes | httpx.AsyncByteStream | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx.Response:
        """One request, read whole; of a stream `headers` have the length. A refused token is asked for anew once, where
        the request can be repeated.
        """
        answer = await self._send(method, path, headers=headers, content=content, params=params)
        if answer.status_code == 401:
            self._token = None
            if content is None or isinstance(content, bytes):
                answer = await self._send(method, path, headers=headers, content=content, params=params)
        if not answer.is_success:
            raise rebuilt(answer.status_code, dict(answer.headers), answer.content)
        return answer

    async def _send(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str],
        content: bytes | httpx.AsyncByteStream | None,
        params: dict[str, str] | None,
    ) -> httpx.Response:
        if self._client is None:
            raise RuntimeError("The node is not running: start run() first.")
        token = await self._newest_token()
        try:
            request = self._client.build_request(
                method,
                NODE_PATH + path,
                headers={**headers, "authorization": f"Bearer {token}"},
                content=content if isinstance(content, bytes) else None,
                params=params,
            )
            if isinstance(content, httpx.AsyncByteStream):
                # Not as `content`, which httpx wraps in a generator that is left lying where a body is cut.
                request = httpx.Request(method, request.url, headers=request.headers, stream=content)
            return await self._client.send(request)
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _no_answer(error) from None

    async def _newest_token(self) -> str:
        if self._token is None or trio.current_time() >= self._good_until:
            try:
                given = await self._token_provider()
            except Exception as error:  # the provider is not ours; it is asked again with the next request
                raise LinkLost(f"No token: {error}.", outcome=Outcome.NOT_SENT) from error
            token = given if isinstance(given, Token) else Token(given)
            lasts_s = ASK_AGAIN_S if token.lifetime_s is None else token.lifetime_s * RENEW_AT
            self._token, self._good_until = token, trio.current_time() + lasts_s
        return self._token.value


def base_url(socket_url: str) -> str:
    """Where the gateway's node listener answers HTTP, by the address of its socket. Raises `ValueError`."""
    parts = urlsplit(socket_url)
    scheme = "https" if parts.scheme == "wss" else "http"
    path = parts.path
    path = path.removesuffix(SOCKET_PATH)
    return f"{scheme}://{parts.netloc.rpartition('@')[2]}{path.rstrip('/')}"


def path_of(upload_url: str) -> str:
    """What follows `/v1/nodes/`. The host is not looked at: a node's token goes to the gateway it was told of by
    people, and to nobody whom an answer names.
    """
    _, found, path = upload_url.partition(NODE_PATH)
    if not found or not path:
        raise BadResponse(f"The gateway names an upload that is none of its own: {upload_url[:200]!r}.")
    return path


def _no_answer(error: Exception) -> GatewayError:
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
    outcome = Outcome.NOT_SENT if never_sent else Outcome.UNKNOWN
    return LinkLost(f"The gateway gave no answer: {str(error) or type(error).__name__}.", outcome=outcome)
