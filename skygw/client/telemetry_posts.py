"""What a node publishes, over HTTP: for a site that cannot hold a socket. No command reaches it, and no stop."""

import logging
import sqlite3
from collections.abc import Callable, Sequence

import trio

from skygw.client.durable_sender import RETRY_S
from skygw.client.hub_http import HubHttp, Record
from skygw.client.journal import Row
from skygw.client.lanes import Snapshots
from skygw.client.outbox import Outbox
from skygw.client.retrying import Backoff
from skygw.errors import BadResponse, GatewayError
from skygw.protocol.codec import encode
from skygw.protocol.limits import KIB, MAX_FRAMES_PER_MESSAGE

log = logging.getLogger("skygw.client")

POST_BYTES = 512 * KIB
"""One post: at most so much of snapshots, beside what one read of the outbox brings."""


class TelemetryPosts:
    """Durable frames in order, forgotten when the hub has committed them; the newest snapshot of each resource."""

    def __init__(
        self, outbox: Outbox, snapshots: Snapshots, hub: HubHttp, *, every_s: float, chance: Callable[[], float]
    ) -> None:
        """`every_s` is how long what is published may wait."""
        self._outbox = outbox
        self._snapshots = snapshots
        self._hub = hub
        self._every_s = every_s
        self._backoff = Backoff(chance)

    async def run(self) -> None:
        """Posts until cancelled."""
        while True:
            try:
                more = await self._post()
            except GatewayError as error:
                self._snapshots.all_due()  # which of them arrived nobody knows, and the newest is right in any case
                wait_s = self._backoff.after(error)
                log.warning("what is published cannot be posted, again in %.1f s: %s", wait_s, error)
                await trio.sleep(wait_s)
            except sqlite3.Error as error:
                log.error("the journal fails, and is tried again in %.0f s: %s", RETRY_S, error)  # noqa: TRY400
                await trio.sleep(RETRY_S)
            else:
                self._backoff.succeeded()
                if not more:
                    await trio.sleep(self._every_s)

    async def _post(self) -> bool:
        """Whether more of the outbox waits."""
        rows = await self._outbox.read(after=self._outbox.acked) if self._outbox.last_seq > self._outbox.acked else []
        frames = [row.text for row in rows] + self._due(MAX_FRAMES_PER_MESSAGE - len(rows))
        if not frames:
            return False
        answer = await self._hub.ask(
            "POST",
            "me/telemetry",
            body=f"[{','.join(frames)}]",
            params={"outboxUid": str(self._outbox.outbox_uid)},
        )
        _tell_refused(answer)
        if rows:
            await self._outbox.acknowledge(_acked(answer, rows))
        return self._outbox.last_seq > self._outbox.acked

    def _due(self, at_most: int) -> list[str]:
        frames: list[str] = []
        size = 0
        while len(frames) < at_most and size < POST_BYTES and (snapshot := self._snapshots.next_due()) is not None:
            frames.append(encode(snapshot))
            size += len(frames[-1])
        return frames


def _acked(answer: Record, rows: Sequence[Row]) -> int:
    """Everything up to it is committed or will never be taken."""
    seq = answer.get("ackedSeq")
    if not isinstance(seq, int) or isinstance(seq, bool) or not rows[0].seq <= seq <= rows[-1].seq:
        raise BadResponse(f"The gateway acknowledges {seq!r} of {rows[0].seq} to {rows[-1].seq}.")
    return seq


def _tell_refused(answer: Record) -> None:
    for number, item in enumerate(answer.get("items") or ()):
        if isinstance(item, dict) and item.get("code") is not None:
            log.warning("the hub refuses frame %d of a post: %s: %s", number, item["code"], item.get("detail"))
