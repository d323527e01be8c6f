"""Chunks are as large as the uplink's pace allows, and small until that is known."""

from skygw.client.piece_size import LONGEST_S, QUICK_S, QUICK_WRITES, SMALLEST, PieceSize
from skygw.protocol.limits import MAX_CHUNK_PAYLOAD


def write(size: PieceSize, *, took_s: float, times: int = 1) -> None:
    for _ in range(times):
        size.wrote(size.bytes, took_s=took_s)


def test_the_first_pieces_are_the_smallest() -> None:
    assert PieceSize().bytes == SMALLEST


def test_a_fast_line_gets_the_largest_pieces_within_a_megabyte() -> None:
    size = PieceSize()
    written = 0
    while size.bytes < MAX_CHUNK_PAYLOAD:
        written += size.bytes
        write(size, took_s=0.0)
    assert written <= 1024 * 1024 + SMALLEST
    write(size, took_s=0.0, times=QUICK_WRITES)
    assert size.bytes == MAX_CHUNK_PAYLOAD


def test_a_few_quick_writes_into_empty_buffers_prove_nothing() -> None:
    size = PieceSize()
    write(size, took_s=0.0, times=QUICK_WRITES - 1)
    write(size, took_s=QUICK_S * 2)
    write(size, took_s=0.0, times=QUICK_WRITES - 1)
    assert size.bytes == SMALLEST


def test_small_messages_prove_nothing_about_large_ones() -> None:
    size = PieceSize()
    for _ in range(100):
        size.wrote(200, took_s=0.0)
    assert size.bytes == SMALLEST


def test_a_line_that_slows_down_gets_smaller_pieces_down_to_the_smallest() -> None:
    size = PieceSize()
    write(size, took_s=0.0, times=100)
    write(size, took_s=2 * LONGEST_S)
    assert size.bytes == MAX_CHUNK_PAYLOAD // 2
    write(size, took_s=2 * LONGEST_S, times=20)
    assert size.bytes == SMALLEST
