"""Where the issuer's keys come from, kept usable while the issuer rotates them or is away."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import httpx
import trio

from skygw.auth.issuer_http import REACHABLE_FOR_S, IssuerUnavailable, ask_issuer, issuer_address
from skygw.auth.keys import MAX_JWKS_BYTES, KeySet, KeySetError, parse_jwks
from skygw.errors import StartupError

UNKNOWN_KID_REFETCH_S = 30.0
"""Anybody can make up a key id; the issuer is asked about such ids no more often than this."""
RETRY_S = 5.0
"""After a failed fetch, and while there is no key set at all."""
REFRESH_S = 300.0
"""How long a key the issuer has withdrawn may still be believed."""
FETCH_TIMEOUT_S = 5.0
LOOK_TIMEOUT_S = 1.0
"""How long the key file's disk may take: it may lie on a network's."""

log = logging.getLogger(__name__)


class KeySource(Protocol):
    """The keys to verify tokens with, now."""

    async def key_set(self, kid: str | None) -> KeySet:
        """The current keys; if `kid` is not among them, the source may look again first.

        Raises `IssuerUnavailable` only if no key set was ever obtained. Cancelling is safe.
        """
        ...

    async def issuer_reachable(self) -> bool:
        """Whether an installation could get a new token now, as far as can be seen from here."""
        ...


class FixedKeys:
    """Keys that are known from the start and never change, such as the development key."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    async def key_set(self, kid: str | None) -> KeySet:  # noqa: ARG002 - there is nowhere else to look
        """The keys given."""
        await trio.lowlevel.checkpoint()
        return self._keys

    async def issuer_reachable(self) -> bool:
        """True: whoever holds the key can sign."""
        await trio.lowlevel.checkpoint()
        return True


class JwksFile:
    """A key set in a local file, read again when the file changes; a bad new content keeps the old keys."""

    def __init__(self, path: Path) -> None:
        """Read the file at once. Raises `StartupError` if it cannot be read or holds no usable key."""
        self._path = path
        self._complained = False
        self._one_look = trio.CapacityLimiter(1)
        self._hanging = False
        try:
            with path.open("rb") as file:
                self._seen = _version(os.fstat(file.fileno()))
                self._keys = parse_jwks(file.read(MAX_JWKS_BYTES + 1))
        except OSError as error:
            raise StartupError(f"The key file {path} cannot be read: {error.strerror}.") from None
        except KeySetError as error:
            raise StartupError(f"The key file {path} is not usable. {error}") from None

    async def key_set(self, kid: str | None) -> KeySet:  # noqa: ARG002 - a change shows in the file's date
        """The keys the file holds, or held when it was last readable. Waits `LOOK_TIMEOUT_S` for the disk at most."""
        if self._hanging and self._one_look.borrowed_tokens:
            await trio.lowlevel.checkpoint()
            return self._keys
        with trio.move_on_after(LOOK_TIMEOUT_S) as look:
            try:
                # A thread that hangs is left behind; there is never more than one.
                self._take(await trio.to_thread.run_sync(self._changed, abandon_on_cancel=True, limiter=self._one_look))
                self._complained = False
            except OSError as error:
                self._complain(error.strerror or type(error).__name__)
        self._hanging = look.cancelled_caught
        if self._hanging:
            self._complain(f"no answer within {LOOK_TIMEOUT_S:g} s")
        return self._keys

    async def issuer_reachable(self) -> bool:
        """True: a file says nothing about its issuer, so no grace is given on its word."""
        await trio.lowlevel.checkpoint()
        return True

    def _changed(self) -> tuple[tuple[int, int, int], bytes] | None:
        """In a thread: the file's version and content, if it is another one."""
        if _version(self._path.stat()) == self._seen:
            return None
        with self._path.open("rb") as file:
            return _version(os.fstat(file.fileno())), file.read(MAX_JWKS_BYTES + 1)

    def _take(self, changed: tuple[tuple[int, int, int], bytes] | None) -> None:
        if changed is None or changed[0] == self._seen:  # another task was quicker
            return
        self._seen, content = changed
        try:
            self._keys = parse_jwks(content)
        except KeySetError as error:
            log.warning("The key file %s is not usable, its last keys stay. %s", self._path, error)
        else:
            log.info("The key file %s was read again: %d keys.", self._path, len(self._keys))

    def _complain(self, why: str) -> None:
        if not self._complained:
            log.warning("The key file %s cannot be read, its last keys stay: %s.", self._path, why)
        self._complained = True


class JwksUrl:
    """The key set an issuer publishes. The last good one is kept whatever the issuer answers later.

    Fetches never overlap: those who need one wait for the one under way. `now` is a monotonic clock in
    seconds.
    """

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        timeout_s: float = FETCH_TIMEOUT_S,
        refresh_s: float = REFRESH_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`client` stays the caller's. Raises `StartupError` for an address that is not safe to ask."""
        self._address = issuer_address(url, what="the key set")
        self._client = client
        self._timeout_s = timeout_s
        self._refresh_s = refresh_s
        self._now = now
        self._one_fetch = trio.Lock()
        self._keys: KeySet | None = None
        self._attempts = 0
        self._attempted_at = -float("inf")
        self._looked_for_kid_at = -float("inf")
        self._reachable = True
        self._failure: IssuerUnavailable | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Fetch now and then periodically, until cancelled; started after the first attempt, good or bad."""
        await self._fetch_unless_under_way()
        task_status.started()
        while True:
            await trio.sleep(self._refresh_s if self._reachable else min(RETRY_S, self._refresh_s))
            await self._fetch_unless_under_way()

    async def key_set(self, kid: str | None) -> KeySet:
        """The last good set, fetched first if there is none, or if it lacks `kid` and 30 s have passed."""
        if self._should_fetch(kid):
            await self._fetch_unless_under_way(for_unknown_kid=self._keys is not None)
        await trio.lowlevel.checkpoint()
        if self._keys is None:
            raise IssuerUnavailable(str(self._failure))
        return self._keys

    async def issuer_reachable(self) -> bool:
        """Whether the last attempt was answered with a key set; one of the last 10 s counts, else try."""
        if self._now() - self._attempted_at >= REACHABLE_FOR_S:
            await self._fetch_unless_under_way()
        await trio.lowlevel.checkpoint()
        return self._reachable

    def _should_fetch(self, kid: str | None) -> bool:
        if self._keys is None:
            return self._one_fetch.locked() or self._now() - self._attempted_at >= RETRY_S
        if kid is None or kid in self._keys:
            return False
        return self._one_fetch.locked() or self._now() - self._looked_for_kid_at >= UNKNOWN_KID_REFETCH_S

    async def _fetch_unless_under_way(self, *, for_unknown_kid: bool = False) -> None:
        """Fetch once, or wait for the fetch that another task has begun."""
        attempts = self._attempts
        async with self._one_fetch:
            if self._attempts != attempts:
                return
            # A stranger who hangs up must not waste the one attempt in 30 s: a fetch is not cut short with
            # the request that asked for it. Its own deadline ends it: `timeout_s`, and a second to close.
            with trio.CancelScope(shield=True):
                if for_unknown_kid:
                    self._looked_for_kid_at = self._now()
                await self._fetch()

    async def _fetch(self) -> None:
        request = self._client.build_request("GET", self._address, headers=_PLAIN_JSON)
        try:
            body = await ask_issuer(self._client, request, max_bytes=MAX_JWKS_BYTES, timeout_s=self._timeout_s)
            keys = parse_jwks(body)
        except IssuerUnavailable as error:
            self._note_failure(error)
        except KeySetError as error:
            self._note_failure(IssuerUnavailable(f"The token issuer at {self._address.host}: {error}"))
        else:
            if not self._reachable:
                log.info("The token issuer at %s answers again.", self._address.host)
            self._keys, self._reachable, self._failure = keys, True, None
        finally:
            self._attempts += 1
            self._attempted_at = self._now()

    def _note_failure(self, failure: IssuerUnavailable) -> None:
        if self._reachable:
            log.warning("%s %s", failure, "The last good keys stay in use." if self._keys else "There are no keys.")
        self._reachable, self._failure = False, failure


_PLAIN_JSON = {"Accept": "application/jwk-set+json, application/json", "Accept-Encoding": "identity"}


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    """Changes when a file is rewritten or replaced, even within one tick of its date."""
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
