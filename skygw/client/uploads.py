"""Brings the bytes of declared files to the hub, by tus 1.0, and waits until it has looked at them.

tus and not the IETF's text: tus 1.0 has stood for ten years, while each draft of the other is a version of its own;
what is installed on a mountain today has to speak with the gateways of years to come. Its checksums let a gateway take
a piece whole or not at all, so that bytes which were changed on the way cost a piece and not the file.
"""

import base64
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import httpx
import trio

from skygw.client.deliveries import reason_of
from skygw.client.gate import Gate
from skygw.client.hub_http import HubHttp
from skygw.client.retrying import BARE_REFUSALS, Backoff, Verdict, judge
from skygw.client.upload_pace import UploadPace
from skygw.client.work import Work
from skygw.client.work_items import Asset, AssetState
from skygw.client.work_queue import WorkQueue
from skygw.errors import BadResponse, GatewayError
from skygw.protocol.limits import KIB, MIB

log = logging.getLogger("skygw.client")

AT_ONCE = 2
"""Files under way: a large one does not hold up all small ones. They share one pace."""

WATCHED = 64
"""Files of which it is asked whether the hub has looked at them; the others follow."""

LEAST_PIECE, MOST_PIECE = 64 * KIB, 4 * MIB
PIECE_S = 4.0
"""What a piece takes at the pace there is: a cut costs no more. Two of the largest are 8 MiB of memory."""

FIRST_LOOK_S, LAST_LOOK_S = 1.0, 60.0
"""How soon the hub is asked whether it has looked at a file, and how seldom in the end."""

VERSION = {"tus-resumable": "1.0.0"}
CONFLICT, GONE_STATUSES, CHECKSUM_MISMATCH = 409, (404, 410), 460


class FileChanged(Exception):
    """What lies there is not what was declared. The sentence says why."""


class PacedBody(httpx.AsyncByteStream):
    """The body of one request, handed over in slices, as the pace allows. Good for one reading."""

    def __init__(self, piece: bytes, pace: UploadPace) -> None:
        self._piece = piece
        self._pace = pace
        self._at = 0

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        part = self._piece[self._at : self._at + self._pace.slice_bytes]
        if not part:
            raise StopAsyncIteration
        self._at += len(part)
        await self._pace.turn(len(part))
        return part


class Uploads:
    """`run` until cancelled; what was under way goes on from where the hub says it is."""

    def __init__(self, work: Work, hub: HubHttp, gate: Gate, pace: UploadPace, *, chance: Callable[[], float]) -> None:
        self._work = work
        self._hub = hub
        self._gate = gate
        self._pace = pace
        self._chance = chance
        self._places = trio.CapacityLimiter(AT_ONCE)
        self._at_hand = set[UUID]()
        self._gone: dict[UUID, Backoff] = {}
        """Of those that the hub had lost: a hub that loses them for ever is not asked without a pause."""

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                changed = self._work.changed
                for state, bring in ((AssetState.UPLOADING, self._upload), (AssetState.UPLOADED, self._watch)):
                    for asset in await self._work.ask(partial(WorkQueue.assets, state=state)):
                        if asset.uid not in self._at_hand and len(self._at_hand) < WATCHED:
                            self._at_hand.add(asset.uid)
                            nursery.start_soon(self._bring, bring, asset)
                await changed.wait()

    async def _bring(self, step: Callable[[Asset], Awaitable[None]], asset: Asset) -> None:
        """Takes one step, over and over while it fails and may succeed. What it changes leads to the next."""
        backoff = Backoff(self._chance)
        stuck = 0
        try:
            while True:
                await self._gate.wait()
                try:
                    await step(asset)
                except FileChanged as changed:
                    await self._fail(asset, f"file_changed: {changed}")
                except GatewayError as error:
                    status = error.details.get("httpStatus")
                    if status in GONE_STATUSES and (
                        asset.state is AssetState.UPLOADING or not error.details.get("bare")
                    ):
                        # It expired there (a HEAD says so without a reason): the declaration says where to begin anew.
                        log.info("the hub has no such upload; declared anew", extra={"asset_uid": str(asset.uid)})
                        await trio.sleep(self._gone.setdefault(asset.uid, Backoff(self._chance)).after(error))
                        await self._work.note(partial(WorkQueue.declare_again, uid=asset.uid))
                        return
                    verdict = judge(error, bare_before=stuck)
                    if status in (CONFLICT, CHECKSUM_MISMATCH):
                        # Another offset than the hub's, or bytes that were changed on the way: asked for again.
                        verdict = Verdict.NEVER if stuck >= BARE_REFUSALS else Verdict.THIS
                    stuck = stuck + 1 if status is not None and status < 500 else 0
                    if verdict is not Verdict.NEVER:
                        await trio.sleep(backoff.after(error))
                        continue
                    await self._fail(asset, reason_of(error))
                return
        finally:
            self._at_hand.discard(asset.uid)
            self._work.look_again()

    async def _fail(self, asset: Asset, reason: str) -> None:
        log.warning("a file will not reach the hub: %s", reason, extra={"asset_uid": str(asset.uid)})
        await self._work.note(partial(WorkQueue.moved, uid=asset.uid, state=AssetState.FAILED, reason=reason))

    # The bytes.

    async def _upload(self, asset: Asset) -> None:
        async with self._places:
            offset = await self._offset(asset)
            while offset < asset.size:
                offset = await self._send_piece(asset, offset)
                await self._work.note(
                    partial(WorkQueue.moved, uid=asset.uid, state=AssetState.UPLOADING, offset=offset)
                )
        await self._work.note(partial(WorkQueue.moved, uid=asset.uid, state=AssetState.UPLOADED, offset=asset.size))

    async def _offset(self, asset: Asset) -> int:
        answer = await self._hub.send("HEAD", _url(asset), headers=VERSION)
        return _offset_in(answer.headers.get("upload-offset"), at_most=asset.size)

    async def _send_piece(self, asset: Asset, offset: int) -> int:
        """Returns what the hub has acknowledged then."""
        wanted = min(int(self._pace.bytes_per_s * PIECE_S), MOST_PIECE)
        piece = await trio.to_thread.run_sync(_read, asset, offset, max(wanted, LEAST_PIECE))
        digest = base64.b64encode(sha256(piece).digest()).decode()
        answer = await self._hub.send(
            "PATCH",
            _url(asset),
            headers={
                **VERSION,
                "content-type": "application/offset+octet-stream",
                "content-length": str(len(piece)),
                "upload-offset": str(offset),
                "upload-checksum": f"sha256 {digest}",
            },
            content=PacedBody(piece, self._pace),
        )
        return _offset_in(answer.headers.get("upload-offset"), at_most=asset.size)

    # What the hub makes of them.

    async def _watch(self, asset: Asset) -> None:
        """Asks until the hub has looked at it."""
        wait_s = FIRST_LOOK_S
        while True:
            answer = await self._hub.ask("GET", f"me/assets/{asset.hub_uid}")
            match answer.get("transferState"):
                case "completed":
                    await self._work.note(partial(WorkQueue.moved, uid=asset.uid, state=AssetState.VERIFIED))
                    self._gone.pop(asset.uid, None)
                    return
                case "failed" | "canceled" as state:
                    why = answer.get("transferError") or "no reason given"
                    await self._fail(asset, f"{state}: {why}")
                    return
            await trio.sleep(wait_s * (0.5 + self._chance()))
            wait_s = min(2 * wait_s, LAST_LOOK_S)


def _url(asset: Asset) -> str:
    if asset.upload_url is None:
        raise BadResponse(f"The gateway has not said where the asset {asset.uid} goes.")
    return asset.upload_url


def _offset_in(header: str | None, *, at_most: int) -> int:
    if header is None or not (header.isascii() and header.isdigit()) or int(header) > at_most:
        raise BadResponse(f"The gateway's answer has no offset of this file: {header!r}.")
    return int(header)


def _read(asset: Asset, offset: int, length: int) -> bytes:
    """In a thread. Raises `FileChanged`."""
    try:
        with asset.path.open("rb") as file:
            size = file.seek(0, 2)
            if size != asset.size:
                raise FileChanged(f"{asset.path} has {size} bytes now and had {asset.size} when it was declared.")
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        raise FileChanged(f"{asset.path} cannot be read: {error.strerror}.") from None


def digest_of(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file; blocking. Raises `OSError`."""
    with path.open("rb") as file:
        digest = sha256()
        while block := file.read(MIB):
            digest.update(block)
        return file.tell(), digest.hexdigest()
