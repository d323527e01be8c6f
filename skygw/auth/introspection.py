"""Asks the issuer what an opaque token stands for, often enough that a revocation holds within seconds.

Source: RFC 7662.
"""

import base64
import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
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
"""By each door. Made-up tokens are not cached; this keeps a flood of them off the issuer."""
TIMEOUT_S = 5.0
STALE_TIMEOUT_S = 2.0
"""How long the issuer has where its last word may stand in: a stop must not wait for an issuer that hangs."""
ASK_AGAIN_S = 2.0
"""After the issuer could not be asked, its last word stands in for this long before it is asked again."""


@dataclass(frozen=True)
class Said:
    """What the issuer said about an active token. `stale`: a while ago, and now it cannot be asked."""

    claims: Mapping[str, Any]
    stale: bool


class _Queue:
    """The questions of one door, so that strangers at one keep nobody waiting at the other."""

    def __init__(self) -> None:
        self.limit = trio.CapacityLimiter(MAX_IN_FLIGHT)
        self.attempted_at = -inf
        self.reachable = True

    def note(self, now: float, *, reachable: bool) -> None:
        self.reachable = reachable
        self.attempted_at = now


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
        stale_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`client` stays the caller's. `stale_s` is how long after it was said the issuer's last word about a service
        stands in while the issuer is away. Raises `StartupError` for an unsafe address or too long a cache."""
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
        self._stale_s = stale_s
        self._nodes, self._services = _Queue(), _Queue()
        self._active: OrderedDict[bytes, tuple[float, Mapping[str, Any]]] = OrderedDict()
        """What was said of active tokens, and when it was asked."""

    async def claims(self, token: str) -> Mapping[str, Any]:
        """What the issuer says about an active token, not yet held against this gateway's expectations.

        Raises `Unauthenticated` for one that is not active, `IssuerUnavailable` if nobody can say.
        """
        digest = _digest(token)
        known = self._fresh(digest)
        if known is None:
            return await self._asked(token, digest, self._nodes, self._timeout_s)
        await trio.lowlevel.checkpoint()
        return known

    async def service_claims(self, token: str) -> Said:
        """As `claims`, for a service; while the issuer is away, what it said last, for `stale_s`."""
        digest = _digest(token)
        known = self._fresh(digest)
        if known is not None:
            await trio.lowlevel.checkpoint()
            return Said(known, stale=False)
        last = self._last_word(digest)
        if last is None:
            return Said(await self._asked(token, digest, self._services, self._timeout_s), stale=False)
        if not self._services.reachable and self._now() - self._services.attempted_at < ASK_AGAIN_S:
            await trio.lowlevel.checkpoint()
            return Said(last, stale=True)
        try:
            timeout_s = min(self._timeout_s, STALE_TIMEOUT_S)
            return Said(await self._asked(token, digest, self._services, timeout_s), stale=False)
        except IssuerUnavailable:
            # Others may have heard meanwhile that the token is revoked.
            last = self._last_word(digest)
            if last is None:
                raise
            return Said(last, stale=True)

    async def issuer_reachable(self) -> bool:
        """Whether the last question was answered; if it is over 10 s old, ask about a made-up token."""
        if self._now() - self._nodes.attempted_at >= REACHABLE_FOR_S:
            try:
                await self._ask(secrets.token_urlsafe(32), self._nodes, self._timeout_s)
            except IssuerUnavailable:
                return False
        await trio.lowlevel.checkpoint()
        return self._nodes.reachable

    def _fresh(self, digest: bytes) -> Mapping[str, Any] | None:
        asked_at, answer = self._active.get(digest, _NOTHING)
        return answer if self._now() < asked_at + self._cache_s else None

    def _last_word(self, digest: bytes) -> Mapping[str, Any] | None:
        asked_at, answer = self._active.get(digest, _NOTHING)
        return answer if self._now() < asked_at + self._stale_s else None

    async def _asked(self, token: str, digest: bytes, queue: _Queue, timeout_s: float) -> Mapping[str, Any]:
        # Counted from before the question: the answer may be old when it comes.
        asked_at = self._now()
        answer = await self._ask(token, queue, timeout_s)
        self._active.pop(digest, None)
        if answer.get("active") is not True:
            raise Unauthenticated("The token is not active.")
        self._active[digest] = (asked_at, answer)
        while len(self._active) > MAX_CACHED_TOKENS:
            self._active.popitem(last=False)
        return answer

    async def _ask(self, token: str, queue: _Queue, timeout_s: float) -> dict[str, Any]:
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
            with trio.fail_after(timeout_s):
                async with queue.limit:
                    body = await ask_issuer(self._client, request, max_bytes=MAX_ANSWER_BYTES, timeout_s=timeout_s)
            answer = parse_object(body)
        except trio.TooSlowError:
            queue.note(self._now(), reachable=False)
            raise IssuerUnavailable(f"The token issuer at {self._address.host} has too much to do.") from None
        except ValueError as error:
            queue.note(self._now(), reachable=False)
            raise IssuerUnavailable(
                f"The answer of the token issuer at {self._address.host} cannot be read: {error}."
            ) from None
        except IssuerUnavailable:
            queue.note(self._now(), reachable=False)
            raise
        queue.note(self._now(), reachable=True)
        return answer


_NOTHING: tuple[float, Mapping[str, Any]] = (-inf, {})


def _digest(token: str) -> bytes:
    """What a token is looked up by: none is kept, and the time a look-up takes tells nothing about one."""
    return hashlib.sha256(token.encode()).digest()
