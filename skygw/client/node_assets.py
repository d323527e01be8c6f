"""Files as a node gives them to the hub: kept track of on disk from when they are submitted until the hub has them."""

import os
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

import trio

from skygw.client.internal_api import given
from skygw.client.uploads import digest_of
from skygw.client.work import Work
from skygw.client.work_items import Asset, AssetState
from skygw.client.work_queue import WorkQueue
from skygw.errors import NotFound
from skygw.ids import TaskUid

ENDED = (AssetState.VERIFIED, AssetState.FAILED, AssetState.REMOTE)


class NodeAssets:
    """The file itself stays the embedder's: it must lie there unchanged until the asset is `verified`."""

    def __init__(self, work: Work) -> None:
        self._work = work

    async def submit(
        self,
        path: Path,
        *,
        observation_uid: UUID,
        instrument_uid: UUID,
        role: str,
        content_type: str,
        task_uid: TaskUid | None = None,
        file_name: str | None = None,
        is_remote: bool = False,
    ) -> Asset:
        """Reads the file for its digest, and returns when it is on disk that the hub is owed it. The `uid` of what is
        returned is good for `tasks.results` and `tasks.complete` at once. The same again is the same asset.

        With `is_remote` the hub is told of it and fetches the bytes when it wants them. Raises `OSError` for a file
        that cannot be read, `sqlite3.Error`.
        """
        path = Path(os.path.abspath(path))  # noqa: ASYNC240, PTH100 - asks the disk for nothing but where we are
        size, sha256 = await trio.to_thread.run_sync(digest_of, path)
        declaration = given(
            taskUid=None if task_uid is None else str(task_uid),
            observationUid=str(observation_uid),
            instrumentUid=str(instrument_uid),
            role=role,
            fileName=file_name or path.name,
            size=size,
            sha256=sha256,
            contentType=content_type,
            isRemote=is_remote or None,
        )
        asset = Asset(
            uid=uuid4(),
            path=path,
            size=size,
            sha256=sha256,
            content_type=content_type,
            task_uid=task_uid,
            state=AssetState.KEPT,
        )
        return await self._work.keep(partial(WorkQueue.keep_asset, asset=asset, declaration=declaration))

    async def get(self, uid: UUID) -> Asset:
        """As it stands, by our uid or the hub's. Raises `NotFound`."""
        asset = await self._work.ask(partial(WorkQueue.asset, uid=uid))
        if asset is None:
            raise NotFound(f"There is no asset {uid} here.")
        return asset

    async def settled(self, uid: UUID) -> Asset:
        """Waits until it is `verified`, `failed`, or `remote` and the hub knows of it. Raises `NotFound`."""
        while True:
            changed = self._work.changed
            asset = await self.get(uid)
            if asset.state in ENDED:
                return asset
            await changed.wait()
