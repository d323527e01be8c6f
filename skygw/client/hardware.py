"""A node's copy of its hardware graph: on disk, brought up to date by what has changed, there without the gateway too."""

import json
import logging
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import httpx
import trio

from skygw.client.config import Token, TokenProvider
from skygw.client.whole_file import write_whole

log = logging.getLogger("skygw.client")

FILE_NAME = "hardware.json"
SOCKET_PATH = "/v1/ws/node"
HARDWARE_PATH = "/v1/nodes/me/hardware"
TIMEOUT_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between tries while the gateway cannot be asked; a new link is a reason to try at once."""


@dataclass(frozen=True, slots=True)
class HardwareCopy:
    """As the hub had it at `revision`. `graph` has each resource by its uid, as JSON says it."""

    root: UUID
    revision: int
    last_sync_at: datetime
    graph: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


HardwareHandler = Callable[[HardwareCopy], Awaitable[None]]


class _NotNow(Exception):
    """It could not be asked: later, perhaps."""


class _NotHere(Exception):
    """It will not be told: asking again does not help before something has changed."""


class Hardware:
    """`NodeClient.hardware`. Belongs to the client and outlives its links; only `run` waits."""

    def __init__(self, *, url: str, token: TokenProvider, directory: Path, ssl_context: ssl.SSLContext | None) -> None:
        """`url` is that of the node socket: the graph is beside it."""
        self._url = hardware_url(url)
        self._token = token
        self._path = directory / FILE_NAME
        self._ssl_context = ssl_context
        self._copy: HardwareCopy | None = None
        self._handler: HardwareHandler | None = None
        self._is_wanted = False
        self._more = trio.Event()

    @property
    def graph(self) -> Mapping[str, Mapping[str, Any]]:
        """Each resource by its uid; empty before there ever was one."""
        return {} if self._copy is None else self._copy.graph

    @property
    def root(self) -> UUID | None:
        """The telescope or observatory it is the graph of."""
        return None if self._copy is None else self._copy.root

    @property
    def revision(self) -> int | None:
        return None if self._copy is None else self._copy.revision

    @property
    def last_sync_at(self) -> datetime | None:
        """When the hub was last asked and answered, by this machine's clock."""
        return None if self._copy is None else self._copy.last_sync_at

    def on_change(self, handler: HardwareHandler) -> HardwareHandler:
        """Called with every newer copy, one after the other. What it raises is logged, and ends nothing."""
        self._handler = handler
        return handler

    def told(self, revision: int | None) -> None:
        """The hub's revision: another than the copy's is a reason to ask. Nothing when the hub does not know it now: it
        says so later. Never waits.
        """
        if revision is not None and revision != self.revision:
            self._is_wanted = True
            self._more.set()

    async def load(self) -> None:
        """Takes back what is on the disk. A copy that cannot be read is none: the hub has it."""
        try:
            text = await trio.to_thread.run_sync(self._path.read_text, "utf-8")
            stored = json.loads(text)
            self._copy = HardwareCopy(
                root=UUID(stored["root"]),
                revision=int(stored["revision"]),
                last_sync_at=datetime.fromisoformat(stored["last_sync_at"]),
                graph=dict(stored["resources"]),
            )
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("the copy of the hardware graph cannot be read, and is got anew: %s", error)

    async def run(self) -> None:
        """Asks when there is something new, until cancelled."""
        pause_s = FIRST_PAUSE_S
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False, verify=self._verify()) as client:
            while True:
                await self._wanted()
                self._is_wanted, self._more = False, trio.Event()
                try:
                    await self._refresh(client)
                    pause_s = FIRST_PAUSE_S
                except _NotHere as error:
                    log.warning("the hardware graph is not told: %s", error)
                except _NotNow as error:
                    log.info("the hardware graph cannot be asked for now: %s", error)
                    self._is_wanted = True
                    with trio.move_on_after(pause_s):
                        await self._more.wait()
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _wanted(self) -> None:
        if not self._is_wanted:
            await self._more.wait()

    def _verify(self) -> ssl.SSLContext | bool:
        if self._url.startswith("https"):
            return True if self._ssl_context is None else self._ssl_context
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # not used, and made without reading every root certificate

    async def _refresh(self, client: httpx.AsyncClient) -> None:
        before = self._copy
        answer = await self._ask(client, since=None if before is None else before.revision)
        if before is not None and answer["root"] != str(before.root) and not answer["complete"]:
            answer = await self._ask(client, since=None)  # it has been bound to something else
        try:
            copy = _applied(before, answer)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise _NotHere(f"the answer is not understood ({error})") from error
        self._copy = copy
        try:
            await trio.to_thread.run_sync(write_whole, self._path, _as_text(copy))
        except OSError as error:
            # Memory holds for this run of the program; the next one asks again.
            log.error("the copy of the hardware graph cannot be written: %s", error)  # noqa: TRY400
        if before is None or before.graph != copy.graph:
            log.info("the hardware graph is at revision %d: %d resources", copy.revision, len(copy.graph))
        if before is None or (before.revision, before.graph) != (copy.revision, copy.graph):
            await self._tell(copy)

    async def _ask(self, client: httpx.AsyncClient, *, since: int | None) -> dict[str, Any]:
        try:
            given = await self._token()
        except Exception as error:  # the provider is not ours
            raise _NotNow(f"no token ({error})") from error
        token = given.value if isinstance(given, Token) else given
        try:
            answer = await client.get(
                self._url,
                params={} if since is None else {"since": str(since)},
                headers={"authorization": f"Bearer {token}"},
            )
            if answer.status_code != httpx.codes.OK:
                refused = _NotHere if answer.status_code in (403, 404, 422) else _NotNow
                raise refused(f"the gateway answers {answer.status_code}")
            found = answer.json()
        except httpx.HTTPError as error:
            raise _NotNow(str(error) or type(error).__name__) from error
        except ValueError as error:
            raise _NotNow(f"the answer is no JSON ({error})") from error
        if not isinstance(found, dict):
            raise _NotHere("the answer is not understood")
        return found

    async def _tell(self, copy: HardwareCopy) -> None:
        if self._handler is None:
            return
        try:
            await self._handler(copy)
        except Exception:  # the handler is not ours
            log.exception("following a change of the hardware graph failed")


def hardware_url(socket_url: str) -> str:
    """Where the graph is, of a gateway whose node socket is there; a prefix that a proxy takes away is kept."""
    parts = urlsplit(socket_url)
    prefix = parts.path.removesuffix("/").removesuffix(SOCKET_PATH)
    scheme = "https" if parts.scheme == "wss" else "http"
    return urlunsplit((scheme, parts.netloc, f"{prefix}{HARDWARE_PATH}", "", ""))


def _applied(before: HardwareCopy | None, answer: dict[str, Any]) -> HardwareCopy:
    if "resources" in answer:
        graph = dict(answer["resources"])
    elif answer["complete"] or before is None:
        graph = dict(answer["upserted"])
    else:
        removed = set(answer["removed"])
        graph = {uid: resource for uid, resource in before.graph.items() if uid not in removed}
        graph.update(answer["upserted"])
    return HardwareCopy(UUID(answer["root"]), int(answer["revision"]), datetime.now(UTC), graph)


def _as_text(copy: HardwareCopy) -> str:
    return json.dumps(
        {
            "root": str(copy.root),
            "revision": copy.revision,
            "last_sync_at": copy.last_sync_at.isoformat(),
            "resources": copy.graph,
        }
    )
