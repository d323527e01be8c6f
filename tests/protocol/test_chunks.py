"""The binary message."""

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.ids import CallId
from skygw.protocol.chunks import HEADER_BYTES, MAX_CHUNK_SEQ, BrokenChunk, Chunk, pack_chunk, unpack_chunk

CHUNKS = st.builds(
    Chunk, st.uuids().map(CallId), st.integers(min_value=0, max_value=MAX_CHUNK_SEQ), st.binary(max_size=64)
)


@given(CHUNKS)
def test_a_chunk_packed_and_unpacked_is_the_same_chunk(chunk: Chunk) -> None:
    assert unpack_chunk(pack_chunk(chunk)) == chunk


@given(st.binary(max_size=64))
def test_arbitrary_bytes_are_a_chunk_or_a_broken_one(message: bytes) -> None:
    if len(message) < HEADER_BYTES:
        with pytest.raises(BrokenChunk, match=str(len(message))):
            unpack_chunk(message)
    else:
        assert pack_chunk(unpack_chunk(message)) == message


def test_the_bytes_stand_where_the_protocol_says() -> None:
    packed = pack_chunk(Chunk(CallId(UUID("00112233-4455-6677-8899-aabbccddeeff")), 258, b"sky"))
    assert packed.hex(" ") == "00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff 00 00 01 02 73 6b 79"
