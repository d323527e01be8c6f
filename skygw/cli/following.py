"""What every watch does alike: whom it follows, how it is let in, and when it has to end."""

import re
import signal
import threading
from collections.abc import Iterable, Mapping
from typing import Annotated, Any
from uuid import UUID

import trio
from cyclopts import Parameter
from pydantic import ValidationError

from skygw.cli.running_gateway import Entrance, Reach, is_id, reach
from skygw.cli.terminal import CommandFailed, Terminal
from skygw.client.streams import Away, Ended, Gap, Item, StreamFilter, Token
from skygw.errors import StartupError
from skygw.protocol.streams import StreamOptions

OUR_PART = frozenset({401, 403, 404, 426})
"""Refusals that another try does not change."""

FLAGS: Mapping[str, str] = {
    "telescope_uid": "--telescope",
    "observatory_uid": "--observatory",
    "device_uid": "--device",
    "device_type": "--device-type",
    "install_id": "--node",
    "include_existing": "--existing",
    "after": "--after",
    "max_rate_hz": "--max-rate",
    "fields": "--fields",
}
"""What the protocol's filters and options are called here."""

_MEMBER = re.compile(r"\b(?:filter|options)\.(\w+)")

Uids = Annotated[tuple[UUID, ...], Parameter(negative="")]
Words = Annotated[tuple[str, ...], Parameter(negative="")]


def check(wanted: dict[str, Any], options: dict[str, Any]) -> None:
    """Raises `StartupError` for what no gateway would take."""
    try:
        StreamFilter.model_validate(wanted)
        StreamOptions.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        member = str(first["loc"][0])
        raise StartupError(f"{FLAGS.get(member, member)}: {first['msg']}") from None


async def installations(nodes: Iterable[str], reach_by: Reach | None) -> tuple[str, ...] | None:
    """Their uids; only names and numbers are looked up."""
    nodes = tuple(nodes)
    if not nodes:
        return None
    if all(is_id(node) and not node.isdecimal() for node in nodes):
        return nodes
    async with reach(reach_by) as gateway:
        return tuple([str((await gateway.node(node))["uid"]) for node in nodes])


async def token(way_in: Entrance) -> Token:
    await trio.lowlevel.checkpoint()
    return Token(way_in.token(), way_in.lifetime_s)


async def end_when_told(everything: trio.CancelScope) -> None:
    """SIGTERM ends a watch as Ctrl-C does. Python hands signals to the main thread alone."""
    if threading.current_thread() is threading.main_thread():
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            await anext(signals)
        everything.cancel()


def end_if_hopeless(item: Item, *, has_begun: bool) -> None:
    """Raises `CommandFailed` for what another try does not change, in the gateway's words."""
    if isinstance(item, Ended):
        raise CommandFailed(_with_flags(item.text), {"code": item.reason})
    if not isinstance(item, Away):
        return
    if item.needs_attention or item.status in OUR_PART:
        raise CommandFailed(item.reason, {"code": "refused", "status": item.status})
    if not has_begun:
        hint = " Start a gateway with “skygw serve”, or name another with --url." if item.status is None else ""
        raise CommandFailed(item.reason + hint, {"code": "unreachable"})


def print_json(item: Item, terminal: Terminal) -> None:
    """A message as it came, on a line; what nobody sent begins with `watch_`."""
    if isinstance(item, Away):
        terminal.json({"kind": "watch_away", "reason": item.reason, "again_in_s": round(item.again_in_s, 1)})
    elif item.message:
        terminal.json_text(item.message)
    elif isinstance(item, Gap):
        terminal.json({"kind": "watch_gap", "from": item.from_, "to": item.to, "reason": item.reason})


def _with_flags(text: str) -> str:
    """A sentence of the gateway's, with what it finds fault with by the name it has on the command line."""
    return _MEMBER.sub(lambda found: FLAGS.get(found[1], found[0]), text)
