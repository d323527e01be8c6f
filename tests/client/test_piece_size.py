"""How large the pieces of a response are, by how long the last writes took."""

from skygw.client.piece_size import FIRST, LONGEST_S, SMALLEST, PieceSize
from skygw.protocol.limits import MAX_CHUNK_PAYLOAD


def written(pieces: PieceSize, *, bytes_per_s: float, times: int) -> PieceSize:
    for _ in range(times):
        pieces.wrote(pieces.bytes, took_s=pieces.bytes / bytes_per_s)
    return pieces


def test_no_piece_holds_a_slow_uplink_for_long_and_none_is_too_small_to_be_worth_its_head() -> None:
    mobile = written(PieceSize(), bytes_per_s=1e6 / 8, times=10)

    assert mobile.bytes / (1e6 / 8) <= LONGEST_S
    assert written(PieceSize(), bytes_per_s=1_000, times=10).bytes == SMALLEST


def test_pieces_grow_on_a_fast_uplink_up_to_the_largest() -> None:
    pieces = PieceSize()
    assert pieces.bytes == FIRST
    assert written(pieces, bytes_per_s=1e8, times=10).bytes == MAX_CHUNK_PAYLOAD


def test_a_small_message_that_went_out_fast_says_nothing_of_the_pace() -> None:
    pieces = PieceSize()
    pieces.wrote(100, took_s=0.0)

    assert pieces.bytes == FIRST


def test_an_uplink_of_one_pace_has_pieces_of_one_size() -> None:
    pieces = written(PieceSize(), bytes_per_s=1e6, times=20)
    size = pieces.bytes

    assert written(pieces, bytes_per_s=1e6, times=20).bytes == size
