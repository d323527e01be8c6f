"""The binary message: one piece of a direct response (contract §5)."""

import struct
from typing import NamedTuple
from uuid import UUID

from skygw.ids import CallId

_HEADER = struct.Struct(">16sI")
HEADER_BYTES = _HEADER.size
MAX_CHUNK_SEQ = 2**32 - 1


class BrokenChunk(ValueError):
    """Too short to be a chunk."""


class Chunk(NamedTuple):
    """`seq` counts from 0 within one response."""

    id: CallId
    seq: int
    payload: bytes


def pack_chunk(chunk: Chunk) -> bytes:
    """16-byte request id, 4-byte big-endian sequence, payload."""
    return _HEADER.pack(chunk.id.bytes, chunk.seq) + chunk.payload


def unpack_chunk(message: bytes) -> Chunk:
    """Raises `BrokenChunk` when the message is shorter than its header."""
    if len(message) < HEADER_BYTES:
        raise BrokenChunk(f"a binary message of {len(message)} bytes, and the header alone is {HEADER_BYTES}")
    raw_id, seq = _HEADER.unpack_from(message)
    return Chunk(CallId(UUID(bytes=raw_id)), seq, message[HEADER_BYTES:])
