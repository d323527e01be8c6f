"""`skygw lease`: takes control of a telescope or a shared device, keeps it, gives it back, takes it from somebody."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote
from uuid import UUID

import trio
from cyclopts import Parameter

from skygw.cli.running_gateway import ANSWER_TIMEOUT_S, PAGE_SIZE, Reach, reach
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.errors import StartupError

LEASES = "/internal/leases"
Secret = Annotated[
    str | None, Parameter(help="The leaseUid it was acquired with; SKYGW_LEASE_UID, which other users do not see")
]


def acquire(
    telescope: str | None = None,
    /,
    *,
    device: str | None = None,
    duration_s: float = 300.0,
    on_expiry: Literal["finish", "stop", "safe_shutdown"] = "safe_shutdown",
    deadman_s: float | None = None,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Take control. Prints the id of the lease and its secret leaseUid, once: keep both.

    Parameters
    ----------
    telescope
        Its uid; “skygw nodes” lists them.
    device
        Instead, the uid of a device that telescopes share, such as an enclosure.
    duration_s
        Seconds the lease lasts unless it is renewed.
    on_expiry
        What the node does by itself when the lease ends without its holder.
    deadman_s
        The longest silence: the node does the same after so many seconds without a command or a renewal.
    """
    if (telescope is None) == (device is None):
        raise StartupError("name the telescope to take control of, or a shared device with --device")
    body: dict[str, Any] = {"durationS": duration_s, "onExpiry": on_expiry}
    if telescope is not None:
        body["telescopeUid"] = _uid(telescope, "telescope")
    if device is not None:
        body["deviceUid"] = _uid(device, "device")
    if deadman_s is not None:
        body["deadmanS"] = deadman_s
    return trio.run(partial(_act, LEASES, body, reach_by, Terminal(as_json=as_json)))


def renew(
    lease: str,
    /,
    *,
    lease_uid: Secret = None,
    duration_s: float | None = None,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Keep control for another while.

    Parameters
    ----------
    lease
        The id of the lease.
    duration_s
        Seconds from now; as long as before unless told.
    """
    body: dict[str, Any] = {"leaseUid": _secret(lease_uid)}
    if duration_s is not None:
        body["durationS"] = duration_s
    return trio.run(partial(_act, _path(lease, "renew"), body, reach_by, Terminal(as_json=as_json)))


def release(lease: str, /, *, lease_uid: Secret = None, reach_by: Reach | None = None, as_json: AsJson = False) -> int:
    """Give control back. Nothing is stopped.

    Parameters
    ----------
    lease
        The id of the lease.
    """
    body = {"leaseUid": _secret(lease_uid)}
    return trio.run(partial(_act, _path(lease, "release"), body, reach_by, Terminal(as_json=as_json)))


def break_off(lease: str, /, *, reason: str, reach_by: Reach | None = None, as_json: AsJson = False) -> int:
    """Take control from its holder, as an administrator. Nothing is stopped: “skygw stop” does that.

    Parameters
    ----------
    lease
        The id of the lease; “skygw lease list” shows it.
    reason
        Why, in a sentence: the holder is told.
    """
    return trio.run(partial(_act, _path(lease, "break"), {"reason": reason}, reach_by, Terminal(as_json=as_json)))


def list_leases(
    *,
    all_: Annotated[bool, Parameter(name="--all", negative="")] = False,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Show who has control of what, and until when.

    Parameters
    ----------
    all_
        Also the newest hundred of what is over.
    """
    return trio.run(partial(_list, all_, reach_by, Terminal(as_json=as_json)))


async def _act(path: str, body: Mapping[str, Any], by: Reach | None, terminal: Terminal) -> int:
    async with reach(by) as gateway:
        with terminal.progress("asking the gateway…"):
            lease = await gateway.post(path, dict(body), timeout_s=ANSWER_TIMEOUT_S)
    if terminal.as_json:
        terminal.json(lease)
        return ExitCode.OK
    for name, label in (("id", "lease"), ("leaseUid", "leaseUid (secret)")):
        if lease.get(name) is not None:
            terminal.line(f"{label}: {lease[name]}")
    terminal.line(_state(lease))
    return ExitCode.OK


async def _list(everything: bool, by: Reach | None, terminal: Terminal) -> int:
    query: dict[str, str | int] = {"size": PAGE_SIZE} if everything else {"size": PAGE_SIZE, "held": "true"}
    found: list[dict[str, Any]] = []
    async with reach(by) as gateway:
        with terminal.progress("asking the gateway…"):
            page, pages = 1, 1
            while page <= pages:
                answer = await gateway.get(LEASES, page=page, **query)
                found += answer["items"]
                pages = 1 if everything else int(answer["pages"])
                page += 1
    if terminal.as_json:
        terminal.json(found)
        return ExitCode.OK
    if not found:
        terminal.note("nobody has control of anything")
    rows = [
        (
            lease.get("telescopeUid") or lease.get("deviceUid"),
            "telescope" if lease.get("telescopeUid") else "device",
            _holder(lease.get("holder")),
            _state(lease),
            lease.get("id"),
        )
        for lease in found
    ]
    terminal.table(("UID", "KIND", "HOLDER", "STATE", "LEASE"), rows)
    return ExitCode.OK


def _state(lease: Mapping[str, Any]) -> str:
    if lease.get("held"):
        return f"held for {float(lease.get('expiresInS') or 0):.0f} s more"
    reason = f": {lease['reason']}" if lease.get("reason") else ""
    return f"{lease.get('ended') or 'over'}{reason}"


def _holder(holder: object) -> str:
    if not isinstance(holder, dict):
        return ""
    actor = holder.get("actor")
    return f"{holder.get('service')} for {actor.get('uid')}" if isinstance(actor, dict) else str(holder.get("service"))


def _secret(given: str | None) -> str:
    secret = given or os.environ.get("SKYGW_LEASE_UID")
    if not secret:
        raise StartupError("say by which leaseUid the lease is yours: set SKYGW_LEASE_UID, or use --lease-uid")
    return _uid(secret, "lease", shown=False)


def _uid(text: str, what: str, *, shown: bool = True) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        said = f"{text[:80]} is" if shown else "what was given is"
        raise StartupError(f"{said} no uid of a {what}: it is a UUID") from None


def _path(lease: str, act: str) -> str:
    return f"{LEASES}/{quote(_uid(lease, 'lease'), safe='')}/{act}"
