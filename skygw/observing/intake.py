"""One body on its way to the disk: gathered, hashed and written a piece at a time, so that its size costs no memory.

Of a body there are at once what waits to be written (`PIECE_BYTES`, twice while it is put together) and what the
listener holds (256 KiB): under 3 MiB, however long it is.
"""

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from hmac import compare_digest
from typing import TYPE_CHECKING, Protocol

import trio

from skygw.errors import GatewayError
from skygw.observing.byte_store import MIB, PIECE_BYTES, PartWriter
from skygw.observing.upload_errors import Digest, DigestMismatch, LengthMismatch

if TYPE_CHECKING:
    from hashlib import _Hash

FLUSH_BYTES = 16 * MIB
FLUSH_AFTER_S = 2.0
"""So much, or what came in so long, may have to be sent again after a crash."""

HASH_THREADS = 4


class Body(Protocol):
    """The bytes of one request."""

    async def next(self) -> bytes:
        """More of it; empty at its end. Raises `BodyCut`."""
        ...


class Intake:
    """`whole` is a hash of everything before `offset`, if there is one; it goes on with the body. `acknowledge` writes
    down how much is on the disk, each time there is more.
    """

    def __init__(
        self,
        writer: PartWriter,
        *,
        offset: int,
        at_most: int,
        whole: "_Hash | None",
        digests: Sequence[Digest],
        acknowledge: Callable[[int], Awaitable[None]],
        hashing: trio.CapacityLimiter,
    ) -> None:
        self._writer = writer
        self._at_most = at_most
        self._whole = whole
        self._digests = [(digest, hashlib.new(digest.algorithm)) for digest in digests]
        self._acknowledge = acknowledge
        self._hashing = hashing
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._written = self._hashed = self._flushed = offset
        self._flushed_at = trio.current_time()

    @property
    def reached(self) -> int:
        """Where everything that was taken ends; it may not be on the disk yet."""
        return self._written + self._waiting_bytes

    @property
    def whole(self) -> "tuple[int, _Hash] | None":
        """A hash of everything before the first number, if that is how far the part goes."""
        if self._whole is None or self._hashed != self._written:
            return None
        return self._written, self._whole

    async def take(self, body: Body) -> None:
        """All of it. What is right of a body that is cut can be saved. Raises `BodyCut`, `LengthMismatch`,
        `StorageFull`, `StorageFailed`, and what `acknowledge` does.
        """
        coming = self._written
        while piece := await body.next():
            coming += len(piece)
            if coming > self._at_most:
                raise LengthMismatch(f"More bytes came than the {self._at_most} that the upload may have.")
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
            if self._waiting_bytes >= PIECE_BYTES:
                await self._hand_over()
                # Of a body with a digest nothing counts before its last byte, and of a whole nothing less than all.
                if not self._digests and coming < self._at_most and self._is_time_to_flush():
                    await self.save()
        await self._hand_over()

    def check(self) -> None:
        """Whether what was taken is what its digests are of. Raises `DigestMismatch`."""
        for digest, found in self._digests:
            if not compare_digest(found.digest(), digest.value):
                sentence = f"The body is not what its {digest.label} in {digest.field} says; none of it was appended."
                raise DigestMismatch(sentence, digest=digest, is_of_whole=False)

    async def save(self) -> int:
        """Everything taken so far is on the disk and acknowledged; how far that is."""
        await self._hand_over()
        self._flushed = await self._writer.flush()
        self._flushed_at = trio.current_time()
        await self._acknowledge(self._flushed)
        return self._flushed

    async def end(self) -> int:
        """As `save`, where nothing will follow, and without a word to anybody: it is acknowledged as complete."""
        return await self._writer.flush(is_last=True)

    def _is_time_to_flush(self) -> bool:
        return self._written - self._flushed >= FLUSH_BYTES or trio.current_time() - self._flushed_at >= FLUSH_AFTER_S

    async def _hand_over(self) -> None:
        """Hashing and writing at once. Cancelled in between, one may have happened without the other."""
        if not self._waiting:
            return
        data = b"".join(self._waiting)
        self._waiting = []
        self._waiting_bytes = 0
        refusal: GatewayError | None = None
        async with trio.open_nursery() as both:
            both.start_soon(self._hash, data)
            try:
                await self._writer.write(data)
                self._written += len(data)
            except GatewayError as error:  # out of the nursery as it is, and not in a group
                refusal = error
        if refusal is not None:
            raise refusal

    async def _hash(self, data: bytes) -> None:
        hashes = [found for _, found in self._digests]
        if self._whole is not None:
            hashes.append(self._whole)
        await trio.to_thread.run_sync(_update, hashes, data, limiter=self._hashing)
        self._hashed += len(data)


def _update(hashes: "Sequence[_Hash]", data: bytes) -> None:
    for each in hashes:
        each.update(data)
