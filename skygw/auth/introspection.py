"""Asks the issuer what an opaque token stands for, often enough that a revocation holds within seconds.

Source: RFC 7662.
"""

import base64
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote_plus

import httpx
import trio

from skygw.auth.issuer_http import REACHABLE_FOR_S, IssuerUnavailable, ask_issuer, issuer_address
from skygw.auth.strict_json import parse_object
from skygw.errors import StartupError, Unauthenticated

MAX_CACHE_S = 5.0
"""A revoked token may be believed this long, and no setting makes it longer."""
CACHE_S = 2.0
MAX_CACHED_TOKENS = 4096
"""× one answer of at most `MAX_ANSWER_BYTES` bounds the cache to 64 MiB; real answers take under 2 MiB."""
MAX_ANSWER_BYTES = 16 * 1024
MAX_IN_FLIGHT = 16
"""Made-up tokens are not cached; this keeps a flood of them off the issuer."""
TIMEOUT_S = 5.0


class Introspection:
    """The issuer's introspection endpoint. `now` is a monotonic clock in seconds."""

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        client_id: str,
        client_secret: str,
        cache_s: float = CACHE_S,
        timeout_s: float = TIMEOUT_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`client` stays the caller's. Raises `StartupError` for an unsafe address or too long a cache."""
        if not 0 <= cache_s <= MAX_CACHE_S:
            raise StartupError(f"Introspection answers may be kept for 0 to {MAX_CACHE_S:g} s.")
        self._address = issuer_address(url, what="token introspection")
        self._client = client
        # RFC 6749 §2.3.1: both parts are form-encoded before they become a basic credential.
        credentials = f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()
        self._authorization = f"Basic {base64.b64encode(credentials).decode()}"
        self._cache_s = cache_s
        self._timeout_s = timeout_s
        self._now = now
        self._limit = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self._active: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._attempted_at = -float("inf")
        self._reachable = True

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What the issuer says about an active token, not yet held against this gateway's expectations.

        Raises `Unauthenticated` for one that is not active, `IssuerUnavailable` if nobody can say.
        """
        # Looked up by digest: no token is kept, and the time a look-up takes tells nothing about one.
        digest = hashlib.sha256(token.encode()).digest()
        known = self._active.get(digest)
        if known is not None and self._now() < known[0]:
            await trio.lowlevel.checkpoint()
            return known[1]
        # Counted from before the question: the answer may be old when it comes.
        believed_until = self._now() + self._cache_s
        answer = await self._ask(token)
        self._active.pop(digest, None)
        if answer.get("active") is not True:
            raise Unauthenticated("The token is not active.")
        self._active[digest] = (believed_until, answer)
        while len(self._active) > MAX_CACHED_TOKENS:
            self._active.popitem(last=False)
        return answer

    async def issuer_reachable(self) -> bool:
        """Whether the last question was answered; if it is over 10 s old, ask about a made-up token."""
        if self._now() - self._attempted_at >= REACHABLE_FOR_S:
            try:
                await self._ask(secrets.token_urlsafe(32))
            except IssuerUnavailable:
                return False
        await trio.lowlevel.checkpoint()
        return self._reachable

    async def _ask(self, token: str) -> dict[str, Any]:
        request = self._client.build_request(
            "POST",
            self._address,
            data={"token": token, "token_type_hint": "access_token"},
            headers={
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Authorization": self._authorization,
            },
        )
        try:
            with trio.fail_after(self._timeout_s):
                async with self._limit:
                    body = await ask_issuer(
                        self._client, request, max_bytes=MAX_ANSWER_BYTES, timeout_s=self._timeout_s
                    )
            answer = parse_object(body)
        except trio.TooSlowError:
            self._note(reachable=False)
            raise IssuerUnavailable(f"The token issuer at {self._address.host} has too much to do.") from None
        except ValueError as error:
            self._note(reachable=False)
            raise IssuerUnavailable(
                f"The answer of the token issuer at {self._address.host} cannot be read: {error}."
            ) from None
        except IssuerUnavailable:
            self._note(reachable=False)
            raise
        self._note(reachable=True)
        return answer

    def _note(self, *, reachable: bool) -> None:
        self._reachable = reachable
        self._attempted_at = self._now()
