"""Talks to the internal listener of a running gateway, for the commands that look and act.

Addresses, paths and problems only: what an answer means is each command's business.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import httpx
from cyclopts import Parameter

from skygw.cli.configuration import load_settings
from skygw.cli.terminal import CommandFailed
from skygw.cli.token import OPERATOR, OPERATOR_SCOPES, SESSION_S, mint
from skygw.errors import StartupError
from skygw.loopback_hosts import is_loopback

DEFAULT_URL = "http://127.0.0.1:5003"
PAGE_SIZE = 100
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0
UIDS_TOLD = 10
"""Of installations that share a name, in one sentence."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reach:
    """How a command finds its gateway and shows who is asking."""

    url: Annotated[str | None, Parameter(help=f"Internal base URL; SKYGW_URL, else {DEFAULT_URL}")] = None
    token: Annotated[str | None, Parameter(help="Bearer token; SKYGW_TOKEN, else the development key's")] = None
    data_dir: Annotated[Path | None, Parameter(help="Where the development key lies, if not where settings say")] = None
    config: Annotated[Path | None, Parameter(help="Settings file, for the development key")] = None


class RunningGateway:
    """One connection pool to one gateway. Every method raises `CommandFailed`."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """The JSON object at `path`."""
        return await self._ask("GET", path, params=query, timeout_s=ANSWER_TIMEOUT_S)

    async def post(self, path: str, body: dict[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """The JSON object that answers `body`; `timeout_s` is the longest silence waited through."""
        return await self._ask("POST", path, json=body, timeout_s=timeout_s)

    async def nodes(self, *, connected: bool = False) -> list[dict[str, Any]]:
        """Every installation, page by page; or those connected now, for which the gateway asks no database."""
        items: list[dict[str, Any]] = []
        page, pages = 1, 1
        while page <= pages:
            answer = await self.get(
                "/internal/nodes", page=page, size=PAGE_SIZE, connected="true" if connected else "false"
            )
            items += answer["items"]
            pages = int(answer["pages"])
            page += 1
        return items

    async def node(self, which: str) -> dict[str, Any]:
        """An installation by its number, its uid or, failing that, its name."""
        if is_id(which):
            return await self.get(f"/internal/nodes/{which}")
        named = await self.named(which)
        if len(named) > 1:
            uids = ", ".join(str(node.get("uid")) for node in named[:UIDS_TOLD])
            more = f" and {len(named) - UIDS_TOLD} more" if len(named) > UIDS_TOLD else ""
            raise CommandFailed(
                f"{len(named)} installations have the name “{which}”: {uids}{more}. Say which by its uid.",
                {"code": "not_found"},
            )
        return named[0]

    async def named(self, name: str) -> list[dict[str, Any]]:
        """Every installation of this name, at least one: names are given by people, and nothing keeps them apart."""
        named = [node for node in await self.nodes() if node.get("name") == name]
        if not named:
            raise CommandFailed(
                f"No installation has the name “{name}”; “skygw nodes” lists them.", {"code": "not_found"}
            )
        return named

    @asynccontextmanager
    async def stream(self, path: str, body: dict[str, Any], *, timeout_s: float) -> AsyncIterator[httpx.Response]:
        """The answer to `body` as it comes. An answer cut midway raises `CommandFailed` from inside the block."""
        try:
            async with self._client.stream("POST", path, json=body, timeout=_timeout(timeout_s)) as response:
                if response.is_error:
                    await response.aread()
                    raise _refused(response)
                yield response
        except httpx.HTTPError as error:
            raise _unreachable(error, self._client.base_url) from error

    async def _ask(self, method: str, path: str, *, timeout_s: float, **request: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, timeout=_timeout(timeout_s), **request)
        except httpx.HTTPError as error:
            raise _unreachable(error, self._client.base_url) from error
        if response.is_error:
            raise _refused(response)
        answer = _json_object(response)
        if answer is None:
            raise CommandFailed(
                f"What answers at {self._client.base_url} is no gateway: it sent no JSON object.",
                {"code": "bad_response"},
            )
        return answer


def _host(url: str) -> str:
    try:
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0:
            return parts.hostname
    except ValueError:  # brackets that do not match, a port beyond 65535
        pass
    raise StartupError(f"the gateway's address is “{url}”, but should look like {DEFAULT_URL}: correct --url")


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a gateway is, and how to be let in. `token` makes a new one each time, if it knows a `lifetime_s`."""

    url: str
    token: Callable[[], str]
    lifetime_s: float | None


def entrance(options: Reach | None) -> Entrance:
    """As the options and the environment say. Raises `StartupError` if there is no way to be let in."""
    options = options or Reach()
    url = options.url or os.environ.get("SKYGW_URL") or DEFAULT_URL
    host = _host(url)
    token = options.token or os.environ.get("SKYGW_TOKEN")
    if token and not (token.isascii() and token.isprintable()):
        raise StartupError("the token holds characters that no header can carry: correct --token or SKYGW_TOKEN")
    if token:
        return Entrance(url, lambda: token, None)
    if not is_loopback(host):
        raise StartupError(f"{host} is another machine, where the development key opens nothing: set SKYGW_TOKEN")
    settings = load_settings({"data_dir": options.data_dir}, config=options.config)
    make = partial(mint, settings, kind="internal", subject=OPERATOR, scopes=OPERATOR_SCOPES, lifetime_s=SESSION_S)
    make()  # what keeps it from being made is said now, and not as a failure to connect
    return Entrance(url, make, SESSION_S)


@asynccontextmanager
async def reach(options: Reach | None) -> AsyncIterator[RunningGateway]:
    """A gateway as the options and the environment say. Raises `StartupError` if there is no way to be let in."""
    way_in = entrance(options)
    # No proxy from the environment: the token is for the gateway alone.
    # As many connections as are wanted: a stop must not wait in a pool until a hundred others have their proof.
    client = httpx.AsyncClient(
        base_url=way_in.url,
        headers={"Authorization": f"Bearer {way_in.token()}"},
        trust_env=False,
        limits=httpx.Limits(max_connections=None),
    )
    async with client:
        yield RunningGateway(client)


def is_id(which: str) -> bool:
    """Whether `which` is a number or a UUID, as opposed to a name."""
    try:
        UUID(which)
    except ValueError:
        return which.isascii() and which.isdecimal()
    return True


def node_path(node: dict[str, Any], *rest: str) -> str:
    """The path of something of one installation."""
    return "/".join(("/internal/nodes", quote(str(node["uid"]), safe=""), *rest))


def _timeout(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=CONNECT_TIMEOUT_S)


def _json_object(response: httpx.Response) -> dict[str, Any] | None:
    try:
        value = response.json()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _refused(response: httpx.Response) -> CommandFailed:
    problem = _json_object(response) or {}
    detail = problem.get("detail")
    if isinstance(detail, list):
        fields = (f"{'.'.join(map(str, field.get('loc', ())))}: {field.get('msg', '')}" for field in detail)
        detail = f"The request is invalid: {'; '.join(fields)}"
    return CommandFailed(
        str(detail or f"The gateway answered {response.status_code} {response.reason_phrase}."),
        {"code": "internal", **problem, "status": response.status_code},
    )


def _unreachable(error: httpx.HTTPError, url: httpx.URL) -> CommandFailed:
    match error:
        case httpx.ConnectError() | httpx.ConnectTimeout():
            message = f"No gateway answers at {url}: start it with “skygw serve”, or name another with --url."
        case httpx.TimeoutException():
            message = f"The gateway at {url} was silent for too long; what became of the request is not known."
        case _:
            message = (
                f"The connection to {url} broke ({type(error).__name__}); what became of the request is not known."
            )
    outcome = "not_sent" if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else "unknown"
    return CommandFailed(message, {"code": "unreachable", "outcome": outcome})
