"""One subscription of a hub service: what waits to be read, and up to where the chain of messages is unbroken."""

import logging
from collections import deque
from datetime import datetime
from enum import Enum
from math import inf
from typing import Any

import trio

from skygw.client.stream_items import Away, Ended, Gap, Item, Live, Said, Unreadable
from skygw.protocol.codec import encode
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MIB
from skygw.protocol.streams import EARLIEST, EndReason, StreamFilter, StreamName, StreamOptions, SubscribeStream

MAX_WAITING_BYTES = 1 * MIB
"""Of what came and was not read yet; one message more may wait. From there on the socket is not read."""

ITEM_OVERHEAD = 512
"""Counted with each item, so that many small ones are bounded too: 2,048 at most."""

ITEMS_WITHOUT_A_PAUSE = 16

RESUMABLE = frozenset({EndReason.SLOW_CONSUMER.value})
"""Ends after which the gateway serves again from the position."""


log = logging.getLogger("skygw.client")


class GatewayClock:
    """What the gateway's clock showed, told on trio's: of one socket.

    Neither has to be right. It is assumed that the gateway's does not jump while a socket lasts; if it drifts or jumps
    ahead, the next fresh message corrects this, and if it jumps back, values look older than they are.
    """

    def __init__(self) -> None:
        self._zero: float | None = None
        """Never later on trio's clock than the gateway's showed the beginning of 1970."""

    def told(self, server_time: datetime, *, asked_at: float) -> None:
        """An answer that was written at that time, to a question of then: it was not written before the question."""
        zero = asked_at - server_time.timestamp()
        self._zero = zero if self._zero is None else max(self._zero, zero)

    def heard_at(self, received_at: datetime) -> float | None:
        """On trio's clock, never later than it was; `None` while nothing is known of the gateway's."""
        if self._zero is None:
            return None
        now = trio.current_time()
        heard_at = self._zero + received_at.timestamp()
        if heard_at > now:
            self._zero -= heard_at - now
            heard_at = now
        return heard_at


class Place(Enum):
    """Where a subscription stands on the socket there is."""

    NOT_ASKED = "not asked"
    ASKED = "asked"
    REPLAYING = "replaying"
    LIVE = "live"


class Verdict(Enum):
    """What a message means for the subscription it is of."""

    FITS = "fits"
    BROKEN = "broken"
    """Something is missing before it."""
    RESUME = "resume"
    """The gateway stopped serving it, and would again."""
    OVER = "over"


class Subscription:
    """An iterator of items, for one task; what is not read waits, and when much waits, the client reads nothing more.

    Cancelling loses no item. Iteration ends after `Ended`, and when the block of `subscribe` is left.
    """

    def __init__(
        self, stream: StreamName, wanted: StreamFilter, options: StreamOptions, *, tell_beats: bool = False
    ) -> None:
        self.stream = stream
        self._tell_beats = tell_beats
        self.options = options
        self.position: str | None = options.after if options.after != EARLIEST else None
        """Where to resume after the last item that was read: for `after` of a later subscription."""
        self._filter = _said(wanted)
        self._kind = f"event_{stream.value}"
        self._waiting: deque[tuple[Item, str | None]] = deque()
        """Items with the position behind each; the beats that follow one move it."""
        self._bytes = 0
        self._taken = 0
        self._arrived = trio.Event()
        self._room = trio.Event()
        self._is_over = False
        self._received = options.after
        """Up to where messages came, be they read or not."""
        self._prev: str | None = None
        self.place = Place.NOT_ASKED
        self.wire_id = ""
        """What it is called on the socket there is."""
        self.ask_at = -inf
        """Not before that time it is asked for again; on trio's clock."""
        self.heard_at = -inf
        """When the last message of it came, or it was asked for."""
        self.asked_at = -inf
        self.failures = 0
        """How often in a row it did not hold for long."""

    # For whoever reads it.

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Item:
        self._taken += 1
        if self._taken % ITEMS_WITHOUT_A_PAUSE == 0:
            await trio.lowlevel.checkpoint()
        while True:
            if self._waiting:
                item, self.position = self._waiting.popleft()
                self._bytes -= _size(item)
                self._room.set()
                return item
            if self._is_over:
                raise StopAsyncIteration
            self._arrived = trio.Event()
            await self._arrived.wait()

    # For the client.

    @property
    def is_full(self) -> bool:
        return self._bytes >= MAX_WAITING_BYTES and not self._is_over

    async def room(self) -> None:
        """Returns when some of what waits was read, or nobody will."""
        while self.is_full:
            self._room = trio.Event()
            await self._room.wait()

    def close(self) -> None:
        """Nobody reads it any more."""
        self._is_over = True
        self._waiting.clear()
        self._room.set()
        self._arrived.set()

    def ask(self, wire_id: str) -> str:
        """The frame that asks for everything after what has come."""
        self.wire_id = wire_id
        self.place = Place.ASKED
        self.asked_at = self.heard_at = trio.current_time()
        self._prev = None
        options = self.options.model_copy(update={"after": self._received})
        return encode(
            SubscribeStream(subscription_id=wire_id, stream=self.stream, filter=self._filter, options=_said(options))
        )

    def lose(self, away: Away, *, ask_at: float = -inf) -> None:
        """It is not served for now. One that is over stays as it is, and is not asked for again."""
        if self._is_over:
            return
        self.place = Place.NOT_ASKED
        self.wire_id = ""
        self.ask_at = ask_at
        if self._waiting and isinstance(self._waiting[-1][0], Away):
            self._bytes -= _size(self._waiting.pop()[0])  # one is enough, however often it fails
        self._add(away)

    def refuse(self, reason: str, text: str, message: str) -> None:
        """The gateway will not serve it."""
        self._add(Ended(reason=reason, text=text, position=self._received, message=message))
        self._is_over = True

    def stood(self) -> None:
        """The gateway has said that it serves it."""
        self.heard_at = trio.current_time()
        if self.place is Place.ASKED:
            self.place = Place.REPLAYING

    def take(self, said: Said, clock: GatewayClock) -> Verdict:
        """One message of it. Raises `Unreadable` for one whose place in the chain cannot be known."""
        self.stood()
        if said.kind == "event_subscription_ended":
            return self._told_of_end(said)
        position = said.text("position")
        prev = said.text_or_none("prev")
        if not self._follows(prev):
            self._add(
                Gap(from_=self._received, to=position, count=None, reason="lost", position=self._received, message="")
            )
            return Verdict.BROKEN
        before = self._received
        self._received = self._prev = position
        try:
            item = self._item(said, clock)
        except Unreadable as error:
            log.warning("a message of the gateway cannot be read: %s", error)
            item = Gap(from_=before, to=position, count=1, reason="unreadable", position=position, message=said.message)
        if item is None:
            self._move_on()
        else:
            self._add(item)
        return Verdict.FITS

    def _item(self, said: Said, clock: GatewayClock) -> Item | None:
        """`None` for a beat, unless they are to be told, or a word that is newer than this program."""
        match said.kind:
            case "event_gap":
                return said.gap()
            case "event_stale":
                return said.stale()
            case "event_live":
                was_live, self.place = self.place is Place.LIVE, Place.LIVE
                if was_live and not self._tell_beats:
                    return None
                return Live(position=said.text("position"), message=said.message)
            case kind if kind == self._kind:
                return said.changed(self.stream.value, heard_at=clock.heard_at(said.time("received_at")))
        return None

    def _follows(self, prev: str | None) -> bool:
        """The first message on a socket follows the position that was asked for, or nothing."""
        if self._prev is None:
            return prev is None or prev == self._received
        return prev == self._prev

    def _told_of_end(self, said: Said) -> Verdict:
        reason = said.text("reason")
        if reason in RESUMABLE:
            if self._received is None:  # nothing was told, and what has happened since was to be
                self._received = said.text_or_none("position")
            return Verdict.RESUME
        self.refuse(reason, said.text_or_none("message") or reason, said.message)
        return Verdict.OVER

    def _add(self, item: Item) -> None:
        if self._is_over:
            return
        self._waiting.append((item, self._resumable()))
        self._bytes += _size(item)
        self._arrived.set()

    def _move_on(self) -> None:
        """What has been read so far is up to here, or will be when it is."""
        if self._waiting:
            item, _ = self._waiting.pop()
            self._waiting.append((item, self._resumable()))
        else:
            self.position = self._resumable()

    def _resumable(self) -> str | None:
        return None if self._received == EARLIEST else self._received


def _size(item: Item) -> int:
    return ITEM_OVERHEAD + (0 if isinstance(item, Away) else len(item.message))


def _said(model: StreamFilter | StreamOptions) -> Opaque | None:
    members: dict[str, Any] = model.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    return Opaque.of(members) if members else None
