"""The words of a node that answers direct requests."""

import hashlib

from skygw.ids import CallId
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.frame import Frame
from skygw.protocol.node_frames import DirectError, DirectResponseEnd, DirectResponseStart


def start_of(call_id: CallId, *, total_size: int | None = None) -> DirectResponseStart:
    return DirectResponseStart(id=call_id, content_type="application/octet-stream", total_size=total_size)


def chunk_of(call_id: CallId, seq: int, payload: bytes) -> bytes:
    return pack_chunk(Chunk(call_id, seq, payload))


def end_of(call_id: CallId, *pieces: bytes) -> DirectResponseEnd:
    whole = b"".join(pieces)
    return DirectResponseEnd(
        id=call_id, chunks=len(pieces), total_size=len(whole), sha256=hashlib.sha256(whole).hexdigest()
    )


def whole_answer(call_id: CallId, *pieces: bytes) -> list[Frame | bytes]:
    chunks = [chunk_of(call_id, seq, piece) for seq, piece in enumerate(pieces)]
    total_size = sum(map(len, pieces))
    return [start_of(call_id, total_size=total_size), *chunks, end_of(call_id, *pieces)]


def error_of(call_id: CallId, code: str) -> DirectError:
    return DirectError(id=call_id, code=code, message="The node's own words.")
