"""`skygw watch commands`: what is sent and what becomes of it, a line for each step, out of two streams."""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import trio

from skygw.cli.command_words import caller_text, proof_summary, state_text, type_of
from skygw.cli.following import Uids, Words, check, end_if_hopeless, end_when_told, installations, print_json, token
from skygw.cli.running_gateway import Entrance, Reach, entrance
from skygw.cli.terminal import AsJson, ExitCode, Terminal
from skygw.client.caller import Caller
from skygw.client.streams import Away, Changed, Gap, Item, Live, StreamClient, StreamName, Unreadable
from skygw.errors import GatewayError, StartupError
from skygw.ids import CommandId

STREAMS = (StreamName.COMMAND, StreamName.COMMAND_RESULT)

MAX_KNOWN = 1_000
"""Commands whose type and target are remembered, some 200 bytes each; others are looked up."""


def watch_commands(
    *,
    telescope: Uids = (),
    observatory: Uids = (),
    device: Uids = (),
    node: Words = (),
    after: str | None = None,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Show each step of commands until Ctrl-C: when, for what, which type, how far, who says so or asked for it, proof.

    Without a terminal, or with --json, each message of the streams “command” and “command_result” is a line of JSON.
    The last positions, for --after, are printed to stderr at the end.

    Parameters
    ----------
    telescope
        Only for this telescope and its devices (its uid); may be given several times, as may the other filters.
    observatory
        Only of this observatory: its uid.
    device
        Only for this device: its uid.
    node
        Only of this installation: number, uid or name.
    after
        Resume from these positions, as an earlier watch printed them; “earliest” is the beginning of what is kept.
    """
    terminal = Terminal(as_json=as_json)
    logging.getLogger("skygw").addHandler(logging.NullHandler())  # what there is to say is said here
    wanted = {
        "telescope_uid": telescope or None,
        "observatory_uid": observatory or None,
        "device_uid": device or None,
    }
    progress = _Progress(dict(zip(STREAMS, _positions(after), strict=True)))
    for position in progress.asked.values():
        check(wanted, {"after": position})
    is_json = as_json or not terminal.can_be_drawn_on
    try:
        trio.run(partial(_watch, wanted, node, progress, reach_by=reach_by, terminal=terminal, is_json=is_json))
    except* KeyboardInterrupt:
        pass  # the way to end it
    finally:
        if progress.seen.keys() == set(STREAMS):
            positions = ",".join(progress.seen[stream] for stream in STREAMS)
            terminal.note(f"last positions: {positions} (--after {positions} resumes from there)")
    return ExitCode.OK


def _positions(after: str | None) -> tuple[str | None, str | None]:
    first, _, second = (after or "").partition(",")
    if after is not None and (not first or "," in second or after.endswith(",")):
        raise StartupError(
            "--after should be two positions with a comma between them, as a watch prints them at its end"
        )
    return (first or None, second or first or None)


@dataclass
class _Progress:
    """From where to go on, and up to where all was shown."""

    asked: dict[StreamName, str | None]
    seen: dict[StreamName, str] = field(default_factory=dict)
    has_begun: bool = False


class _View(Protocol):
    async def take(self, stream: StreamName, item: Item) -> None: ...


async def _watch(
    wanted: dict[str, Any],
    nodes: tuple[str, ...],
    progress: _Progress,
    *,
    reach_by: Reach | None,
    terminal: Terminal,
    is_json: bool,
) -> None:
    way_in = entrance(reach_by)
    wanted["install_id"] = await installations(nodes, reach_by)
    client = StreamClient(way_in.url, partial(token, way_in))
    # Nothing waits between the streams and the one who shows them: what is not shown yet is not read.
    send, receive = trio.open_memory_channel[tuple[StreamName, Item, str | None]](0)
    async with Caller(way_in.url, way_in.token()) as caller, trio.open_nursery() as nursery:
        view: _View = _Json(terminal) if is_json else _Lines(terminal, caller, way_in)
        nursery.start_soon(client.run)
        nursery.start_soon(end_when_told, nursery.cancel_scope)
        for stream in STREAMS:
            nursery.start_soon(_read, client, stream, wanted, progress, send)
        async for stream, item, position in receive:
            end_if_hopeless(item, has_begun=progress.has_begun)
            await view.take(stream, item)
            if not isinstance(item, Away):
                progress.has_begun = True
                if position is not None:
                    progress.seen[stream] = position


async def _read(
    client: StreamClient,
    stream: StreamName,
    wanted: dict[str, Any],
    progress: _Progress,
    send: trio.MemorySendChannel[tuple[StreamName, Item, str | None]],
) -> None:
    """Beats are told, too: the positions move with them."""
    subscribed = client.subscribe(stream, filter=wanted, after=progress.asked[stream], tell_beats=True)
    async with subscribed as subscription:
        async for item in subscription:
            await send.send((stream, item, subscription.position))


class _Json:
    """For programs."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    async def take(self, stream: StreamName, item: Item) -> None:
        """Both streams lose the gateway at the same time: that is said once."""
        if stream is StreamName.COMMAND_RESULT or not isinstance(item, Away):
            print_json(item, self._terminal)


@dataclass(frozen=True, slots=True)
class _About:
    """What a step does not say of its command."""

    type: str
    target: str

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> "_About":
        """Of an event, or a record: either spelling."""
        names = ("device_uid", "deviceUid", "telescope_uid", "telescopeUid")
        return cls(type_of(data), str(next((data[name] for name in names if data.get(name)), "-")))


class _Lines:
    """A step is a line; what happens to the streams themselves is said on stderr.

    The stream `command` gives no lines: that a command was received is its first step.
    """

    def __init__(self, terminal: Terminal, caller: Caller, way_in: Entrance) -> None:
        self._terminal = terminal
        self._caller = caller
        self._way_in = way_in
        self._known: OrderedDict[str, _About] = OrderedDict()
        self._is_live = False

    async def take(self, stream: StreamName, item: Item) -> None:
        """Waits while something is looked up."""
        match item:
            case Changed():
                await self._take_event(stream, item)
            case Gap():
                count = "some" if item.count is None else item.count
                self._terminal.note(f"gap: {count} missing of {stream.value} ({item.reason})")
            case Live() if stream is StreamName.COMMAND_RESULT and not self._is_live:
                self._is_live = True
                self._terminal.note("live: what follows is news")
            case Away() if stream is StreamName.COMMAND_RESULT:
                self._is_live = False
                self._terminal.note(f"away: {item.reason} Again in {item.again_in_s:.0f} s.")

    async def _take_event(self, stream: StreamName, item: Changed) -> None:
        try:
            data = item.data
        except Unreadable:
            self._terminal.line(item.text)
            return
        command_id = str(data.get("command_id") or data.get("commandId"))
        if stream is StreamName.COMMAND:
            self._remember(command_id, _About.of(data))
        else:
            self._terminal.line(step_of_stream(item, data, await self._about(command_id), command_id))

    async def _about(self, command_id: str) -> "_About":
        known = self._known.get(command_id)
        if known is None:
            known = _About("?", "-")
            try:
                self._caller.renew_token(self._way_in.token())
                known = _About.of(await self._caller.command_record(CommandId(UUID(command_id))))
            except (GatewayError, ValueError) as error:
                self._terminal.note(f"what {command_id} is cannot be looked up: {error}")
        self._remember(command_id, known)
        return known

    def _remember(self, command_id: str, about: "_About") -> None:
        self._known[command_id] = about
        self._known.move_to_end(command_id)
        if len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)


def step_of_stream(item: Changed, data: Mapping[str, Any], about: "_About", command_id: str) -> str:
    """Time, target, type, state, who, and what else is known of it."""
    when = (item.observed_at or item.received_at).strftime("%Y-%m-%d %H:%M:%S")
    who = str(data.get("hop") or "node")
    by = caller_text(data) if data.get("service") else ""
    error = data.get("error")
    rest = [
        data.get("canceled"),
        error.get("message") or error.get("reason") if isinstance(error, dict) else None,
        data.get("detail"),
        proof_summary(data),
    ]
    told = "; ".join(str(part) for part in rest if part)
    state = state_text({"state": data.get("status"), "progress": data.get("progress")})
    parts = [when, about.target, f"{about.type:<20}", f"{state:<12}", f"{who} by {by}" if by else who, told]
    return "  ".join(part for part in (*parts, command_id) if part)
