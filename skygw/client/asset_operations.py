"""`asset.read` and `asset.upload` for the files a node has declared, so that no embedder has to write them."""

import json
from functools import partial
from uuid import UUID

import trio

from skygw.client.direct import DirectCall, OperationRefused, Operations
from skygw.client.work import Work
from skygw.client.work_items import Asset, AssetState
from skygw.client.work_queue import WorkQueue

PIECE_BYTES = 256 * 1024


class AssetOperations:
    """Files are found by uid, the hub's or ours: no path ever comes from the hub."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def offer(self, operations: Operations) -> None:
        """Unless the embedder has its own."""
        for name, handler in (("asset.read", self._read), ("asset.upload", self._upload)):
            if operations.find(name) is None:
                operations.register(name, handler, effects="transfer")

    async def _read(self, call: DirectCall) -> None:
        asset = await self._asset(call)
        if call.if_digest is not None and call.if_digest != asset.sha256:
            raise OperationRefused(
                "conflict", "The file is another one than you know.", {"reason": "changed", "sha256": asset.sha256}
            )
        offset = call.offset if call.offset is not None else _count(call, "offset") or 0
        length = call.length if call.length is not None else _count(call, "length")
        if offset > asset.size:
            raise OperationRefused(
                "invalid", f"The file has {asset.size} bytes; there is nothing at {offset}.", {"reason": "invalid"}
            )
        end = asset.size if length is None else min(asset.size, offset + length)
        # Before anything is said: a file that is gone is an answer of its own.
        piece = await self._piece(asset, offset, end)
        await call.start(
            asset.content_type,
            total_size=end - offset,
            metadata={"file_name": asset.name, "size": asset.size, "sha256": asset.sha256, "offset": offset},
        )
        while True:
            await call.send(piece)
            offset += len(piece)
            if offset >= end:
                return
            piece = await self._piece(asset, offset, end)

    async def _piece(self, asset: Asset, offset: int, end: int) -> bytes:
        return await trio.to_thread.run_sync(_piece, asset, offset, min(PIECE_BYTES, end - offset))

    async def _upload(self, call: DirectCall) -> None:
        """Repeatable: it answers how it stands with the file. One that is remote, or was given up, is declared again:
        the hub says then where it wants the bytes.
        """
        asset = await self._asset(call)
        if asset.state in (AssetState.REMOTE, AssetState.FAILED):
            await self._work.note(partial(WorkQueue.declare_again, uid=asset.uid))
            asset = await self._asset(call)
        said = {"asset_uid": str(asset.hub_uid), "state": asset.state.value, "offset": asset.offset, "size": asset.size}
        text = json.dumps(said).encode()
        await call.start("application/json", total_size=len(text))
        await call.send(text)

    async def _asset(self, call: DirectCall) -> Asset:
        wanted = call.params.value.get("asset_uid")
        try:
            uid = UUID(wanted)
        except (TypeError, ValueError, AttributeError):
            raise OperationRefused("invalid", f"{call.operation} needs `asset_uid`.", {"reason": "invalid"}) from None
        asset = await self._work.ask(partial(WorkQueue.asset, uid=uid))
        if asset is None:
            raise OperationRefused("not_found", f"There is no asset {uid} here.", {"reason": "not_found"})
        return asset


def _piece(asset: Asset, offset: int, length: int) -> bytes:
    """In a thread. A file that is not what was declared is refused, or ends the answer without an end."""
    try:
        with asset.path.open("rb") as file:
            if file.seek(0, 2) != asset.size:
                raise OperationRefused("conflict", "The file has been changed.", {"reason": "changed"})
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        why = f"The file of the asset cannot be read: {error.strerror}."
        raise OperationRefused("not_found", why, {"reason": "not_found"}) from None


def _count(call: DirectCall, name: str) -> int | None:
    value = call.params.value.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise OperationRefused("invalid", f"`{name}` must be a whole number from 0.", {"reason": "invalid"})
    return value
