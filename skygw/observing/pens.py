"""One request at a time for each upload, and the newest is the one: a peer that hangs holds nobody up."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from skygw.ids import UploadUid
from skygw.observing.upload_errors import Superseded


class _Pen:
    def __init__(self) -> None:
        self.lock = trio.Lock()
        self.holders: list[trio.CancelScope] = []


class Pens:
    """Within this process; between processes the upload store counts who has the pen."""

    def __init__(self) -> None:
        self._pens: dict[UploadUid, _Pen] = {}

    @asynccontextmanager
    async def held(self, uid: UploadUid) -> AsyncIterator[None]:
        """Whoever had it, or waited for it, is cancelled at once, and has let go when this is entered: what they do in
        their `finally` must be short. Raises `Superseded` in the place of that cancelling.
        """
        pen = self._pens.setdefault(uid, _Pen())
        for older in pen.holders:
            older.cancel()
        mine = trio.CancelScope()
        pen.holders.append(mine)
        try:
            with mine:
                async with pen.lock:
                    yield
        finally:
            pen.holders.remove(mine)
            if not pen.holders and self._pens.get(uid) is pen:
                del self._pens[uid]
        if mine.cancelled_caught:
            raise Superseded
