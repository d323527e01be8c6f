"""`skygw watch`: one stream, live: a table of the latest values, lines of events, or JSON for programs."""

import logging
from functools import partial
from typing import Annotated, Any, Protocol

import trio
from cyclopts import App, Parameter

from skygw.cli.following import Uids, Words, check, end_if_hopeless, end_when_told, installations, print_json, token
from skygw.cli.live_table import LiveTable, telling
from skygw.cli.running_gateway import Reach, entrance
from skygw.cli.terminal import AsJson, ExitCode, Terminal, shown
from skygw.cli.watch_commands import watch_commands
from skygw.client.streams import (
    Away,
    Changed,
    Gap,
    Item,
    Live,
    Stale,
    StreamClient,
    StreamName,
    Subscription,
    Unreadable,
)
from skygw.protocol.streams import RETAINED_STREAMS

DRAWN_EVERY_S = 0.25

Stream = Annotated[StreamName, Parameter(name_transform=str.lower)]
"""By the names the protocol has: `device_snapshot`."""

app = App(
    name="watch",
    help_format="plaintext",
    help_epilogue="“skygw watch commands” follows commands: what is sent, each step, and proof.",
)
app.command(watch_commands, name="commands")


@app.default
def watch(
    stream: Stream,
    /,
    *,
    telescope: Uids = (),
    observatory: Uids = (),
    device: Uids = (),
    device_type: Words = (),
    node: Words = (),
    existing: Annotated[bool, Parameter(negative="--no-existing")] = True,
    after: str | None = None,
    max_rate: float | None = None,
    fields: str | None = None,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Show a stream live until Ctrl-C. On a terminal the latest values are a table, and events are lines; otherwise, or
    with --json, each message is a line of JSON. The last position, for --after, is printed to stderr at the end.

    Parameters
    ----------
    telescope
        Only of this telescope (its uid); may be given several times, as may the other filters.
    observatory
        Only of this observatory: its uid.
    device
        Only of this device: its uid.
    device_type
        Only of devices of this type, such as mount.
    node
        Only of this installation: number, uid or name.
    existing
        Begin with what there is, and not with what changes.
    after
        Resume from this position, as an earlier watch printed it; “earliest” is the beginning of a log.
    max_rate
        At most so many values a second of each resource.
    fields
        Only these members of each value, with commas between them.
    """
    terminal = Terminal(as_json=as_json)
    logging.getLogger("skygw").addHandler(logging.NullHandler())  # what there is to say is said here
    names = None if fields is None else tuple(name.strip() for name in fields.split(",") if name.strip())
    view = _view(terminal, stream, names)
    options = {
        "after": after,
        "include_existing": existing,
        "include_unchanged": isinstance(view, _Table),
        "max_rate_hz": max_rate,
        "fields": (*names, "name") if names and isinstance(view, _Table) else names,
    }
    wanted = {
        "telescope_uid": telescope or None,
        "observatory_uid": observatory or None,
        "device_uid": device or None,
        "device_type": device_type or None,
    }
    check(wanted, options)
    seen = _Seen()
    try:
        trio.run(partial(_watch, stream, wanted, node, options, reach_by=reach_by, view=view, seen=seen))
    except* KeyboardInterrupt:
        pass  # the way to end it
    finally:
        if seen.position is not None:
            terminal.note(f"last position: {seen.position} (--after {seen.position} resumes from there)")
    return ExitCode.OK


class _Seen:
    """Up to where the stream was shown, for whoever prints it at the end."""

    subscription: Subscription | None = None
    has_begun = False
    """Before that the position is what was asked for, and nobody knows whether there is such a one."""

    @property
    def position(self) -> str | None:
        return self.subscription.position if self.subscription is not None and self.has_begun else None


class _View(Protocol):
    def take(self, item: Item) -> None: ...

    async def run(self) -> None:
        """Keeps what is shown up to date, until cancelled."""
        ...


async def _watch(
    stream: StreamName,
    wanted: dict[str, Any],
    nodes: tuple[str, ...],
    options: dict[str, Any],
    *,
    reach_by: Reach | None,
    view: _View,
    seen: _Seen,
) -> None:
    way_in = entrance(reach_by)
    wanted["install_id"] = await installations(nodes, reach_by)
    client = StreamClient(way_in.url, partial(token, way_in))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.run)
        nursery.start_soon(end_when_told, nursery.cancel_scope)
        tell_beats = isinstance(view, _Json)
        async with client.subscribe(stream, filter=wanted, tell_beats=tell_beats, **options) as subscription:
            seen.subscription = subscription
            nursery.start_soon(view.run)
            await _show(subscription, view, seen)


async def _show(subscription: Subscription, view: _View, seen: _Seen) -> None:
    """Until it cannot go on: then `CommandFailed` says why."""
    async for item in subscription:
        end_if_hopeless(item, has_begun=seen.has_begun)
        seen.has_begun = seen.has_begun or not isinstance(item, Away)
        view.take(item)


def _view(terminal: Terminal, stream: StreamName, fields: tuple[str, ...] | None) -> "_Table | _Lines | _Json":
    if terminal.as_json or not terminal.can_be_drawn_on:
        return _Json(terminal)
    if stream in RETAINED_STREAMS:
        return _Table(terminal, LiveTable(stream.value, fields=fields))
    return _Lines(terminal)


class _Json:
    """For programs."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def take(self, item: Item) -> None:
        print_json(item, self._terminal)

    async def run(self) -> None:
        await trio.sleep_forever()


class _Lines:
    """An event is a line; what happens to the stream itself is said on stderr."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def take(self, item: Item) -> None:
        match item:
            case Changed():
                self._terminal.line(_line(item))
            case Live():
                self._terminal.note(f"live: what follows is news (position {item.position})")
            case Gap():
                self._terminal.note(f"gap: {'some' if item.count is None else item.count} missing ({item.reason})")
            case Stale():
                self._terminal.note(f"stale: {item.uid} ({item.reason})")
            case Away():
                self._terminal.note(f"away: {item.reason} Again in {item.again_in_s:.0f} s.")

    async def run(self) -> None:
        await trio.sleep_forever()


def _line(item: Changed) -> str:
    when = (item.observed_at or item.received_at).strftime("%Y-%m-%d %H:%M:%S")
    try:
        return f"{when}  {item.install_id or '-'}  {telling(item.data)}"
    except Unreadable:
        return f"{when}  {item.install_id or '-'}  {shown(item.text)}"


class _Table:
    """The latest values, drawn anew when they have changed, and when they have grown older."""

    def __init__(self, terminal: Terminal, table: LiveTable) -> None:
        self._terminal = terminal
        self._table = table

    def take(self, item: Item) -> None:
        self._table.take(item, now=trio.current_time())

    async def run(self) -> None:
        with self._terminal.screen() as screen:
            while True:
                width, height = self._terminal.size
                # The last line stays free for the cursor, or showing would scroll.
                screen.show(
                    self._table.lines(
                        now=trio.current_time(), width=width, height=height - 1, colour=self._terminal.has_colour
                    )
                )
                await trio.sleep(DRAWN_EVERY_S)
