"""Verifies what has arrived, one asset after the other, until each is verified or known to be wrong.

What an upload has brought agrees with its declared size and SHA-256 before it counts as arrived. Here its bytes become
a content, are looked at as FITS where they should be FITS, and the asset is verified in one transaction with its event
and the results it fulfils. Whatever was left undone when a process ended is found by the next one.
"""

import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from math import inf
from typing import Protocol

import trio

from skygw.errors import NotFound, RoutingUnavailable, StorageFull
from skygw.fits.finding import FitsFinding
from skygw.fits.supervisor import HelperAway
from skygw.ids import AssetUid, InstallId, UploadUid
from skygw.observing.byte_store import ContentKey

LOOK_EVERY_S = 30.0
"""Another replica's, and what failed for a reason of ours."""
SAY_AGAIN_S = 300.0
AT_ONCE = 100
"""Read at once; each is about a kilobyte."""

log = logging.getLogger("skygw.observing")


@dataclass(frozen=True, slots=True)
class Arrived:
    """An asset whose bytes are all here. `upload` brought them, unless they were here before."""

    uid: AssetUid
    install_id: InstallId
    content: ContentKey
    upload: UploadUid | None
    must_be_fits: bool
    arrived_at: datetime
    known: FitsFinding | None
    """What looking at the same bytes has found before."""


class ArrivedAssets(Protocol):
    """Raises `RoutingUnavailable` when it cannot be asked; `StoreFailed` is one, too."""

    async def arrived(self, *, after: Arrived | None, limit: int) -> Sequence[Arrived]:
        """Those that are neither verified nor failed, the first to arrive first, behind `after`."""
        ...

    async def settle(self, asset: Arrived, finding: FitsFinding | None) -> bool:
        """Verified, or with a problem failed: in one transaction the asset, its content, its event and what it fulfils.
        False if it was settled already. `finding` is None where nobody has looked.
        """
        ...

    async def lost(self, asset: Arrived, reason: str) -> None:
        """Its bytes are not here after all: they are wanted again."""
        ...


class Contents(Protocol):
    """As of `ByteStore`."""

    async def finish(self, part: UploadUid, key: ContentKey) -> None: ...

    async def holds(self, key: ContentKey) -> bool: ...


class ContentFiles(Protocol):
    """Contents as files to be read by position."""

    def opened(self, key: ContentKey) -> AbstractAsyncContextManager[int]:
        """A descriptor, until the block ends. Raises `NotFound`, `StorageFull`, `StorageFailed`."""
        ...


class FitsExaminer(Protocol):
    """Raises `HelperAway` when nobody can look now."""

    async def examine(self, descriptor: int) -> FitsFinding: ...


class Verifier:
    """`run` it; `poke` it when something may have arrived."""

    def __init__(
        self, *, assets: ArrivedAssets, contents: Contents, files: ContentFiles, examiner: FitsExaminer
    ) -> None:
        self._assets = assets
        self._contents = contents
        self._files = files
        self._examiner = examiner
        self._poked = trio.Event()
        self._said_at = -inf

    def poke(self) -> None:
        """Never waits."""
        self._poked.set()

    async def run(self) -> None:
        """Until cancelled. What cannot be done now is tried again every `LOOK_EVERY_S`, and holds up nothing else."""
        while True:
            self._poked = trio.Event()
            await self.look()
            with trio.move_on_after(LOOK_EVERY_S):
                await self._poked.wait()

    async def look(self) -> None:
        """Goes once through all that has arrived. Raises nothing that a store or the helper raises."""
        last: Arrived | None = None
        try:
            while found := await self._assets.arrived(after=last, limit=AT_ONCE):
                for last in found:
                    await self._verify(last)
        except RoutingUnavailable as error:
            self._say("what has arrived is not known now", error)

    async def _verify(self, asset: Arrived) -> None:
        try:
            await self._store(asset)
            finding = await self._looked_at(asset)
            if not await self._assets.settle(asset, finding):
                return
        except NotFound as error:
            extra = {"asset": str(asset.uid), "sha256": asset.content.sha256, "bytes": asset.content.size}
            log.error("the bytes of an asset are lost: %s", error, extra=extra)  # noqa: TRY400 -- no traceback helps
            await self._assets.lost(asset, "Its bytes were lost at the hub and are wanted again.")
        except (RoutingUnavailable, StorageFull, HelperAway) as error:
            self._say("an asset is not verified yet", error, asset)
        else:
            problem = None if finding is None else finding.problem
            log.info(
                "asset verified" if problem is None else "asset failed",
                extra={"asset": str(asset.uid), "install_id": str(asset.install_id), "problem": problem},
            )

    async def _store(self, asset: Arrived) -> None:
        """Raises `NotFound` if the bytes are neither an upload's nor a content."""
        if asset.upload is not None:
            await self._contents.finish(asset.upload, asset.content)
        elif not await self._contents.holds(asset.content):
            raise NotFound("These bytes are not here.")

    async def _looked_at(self, asset: Arrived) -> FitsFinding | None:
        if not asset.must_be_fits or asset.known is not None:
            return asset.known
        async with self._files.opened(asset.content) as descriptor:
            return await self._examiner.examine(descriptor)

    def _say(self, what: str, error: Exception, asset: Arrived | None = None) -> None:
        """A store that stays away is one line in `SAY_AGAIN_S`."""
        if trio.current_time() - self._said_at >= SAY_AGAIN_S:
            self._said_at = trio.current_time()
            log.warning("%s: %s", what, error, extra={"asset": None if asset is None else str(asset.uid)})
