"""Sends what lies in the outbox of one socket, and says of each message what became of it."""

from collections.abc import Callable

import trio

from skygw.nodes.link import NodeLink
from skygw.nodes.outbox import Outbox, Parcel, ParcelState
from skygw.nodes.ports import SessionMetrics
from skygw.websocket import LinkClosed, Sent


class Writer:
    """The only task that sends. A write is never under a call's deadline: the link has one of its own.

    `done` is set when nothing more is sent; `lost` is told when the link ended.
    """

    def __init__(
        self, *, link: NodeLink, outbox: Outbox, metrics: SessionMetrics, lost: Callable[[LinkClosed], None]
    ) -> None:
        self.done = trio.Event()
        self._link = link
        self._outbox = outbox
        self._metrics = metrics
        self._lost = lost

    async def run(self) -> None:
        """Runs until the outbox is closed and empty, or the link has ended. Cancelled in a message, the link ends."""
        try:
            while batch := await self._outbox.next():
                sent = Sent()
                try:
                    await self._link.send([parcel.message for parcel in batch], sent)
                except LinkClosed as closed:
                    self._lost(closed)
                    return
                finally:
                    self._settle(batch, sent)
        finally:
            self.done.set()

    def _settle(self, batch: list[Parcel], sent: Sent) -> None:
        """Says of each message what is known: handed over, perhaps, or certainly not."""
        for index, parcel in enumerate(batch):
            if index < sent.whole:
                parcel.settle(ParcelState.WRITTEN)
                self._metrics.message("out", len(parcel.message))
            elif index < sent.whole + sent.doubtful:
                parcel.settle(ParcelState.DOUBTFUL)
            else:
                parcel.settle(ParcelState.WITHDRAWN)
