"""What befalls a stream depends on the seed and on places in it, and on nothing else."""

from skygw.sim.line import SEGMENT_BYTES, Course
from skygw.sim.mishaps import Mishaps

BAD = Course(flip=0.001, loss=0.05, jitter_s=0.02)
END = 100_000


def flips(mishaps: Mishaps, piece: int) -> list[int]:
    return [place for begin in range(0, END, piece) for place in mishaps.flips(begin, min(begin + piece, END))]


def test_the_same_seed_changes_the_same_bytes_however_they_are_cut_into_pieces() -> None:
    assert flips(Mishaps(BAD, "seed", 1, "up"), 1_400) == flips(Mishaps(BAD, "seed", 1, "up"), 17)


def test_another_seed_connection_or_direction_has_other_mishaps() -> None:
    drawn = [
        flips(Mishaps(BAD, *names), 1_400)
        for names in (("a", 1, "up"), ("b", 1, "up"), ("a", 2, "up"), ("a", 1, "down"))
    ]
    assert len({tuple(places) for places in drawn}) == 4


def test_bytes_are_changed_and_segments_lost_about_as_often_as_was_asked() -> None:
    mishaps = Mishaps(BAD, "seed")
    assert 50 < len(flips(mishaps, 1_400)) < 200
    lost = sum(mishaps.losses(begin, begin + SEGMENT_BYTES) for begin in range(0, 1_000 * SEGMENT_BYTES, SEGMENT_BYTES))
    assert 25 < lost < 100


def test_certain_is_every_byte_and_never_is_none() -> None:
    assert Mishaps(Course(flip=1.0), "seed").flips(3, 7) == [3, 4, 5, 6]
    assert Mishaps(Course(), "seed").flips(0, END) == []


def test_jitter_is_within_its_bound_and_the_same_at_the_same_place() -> None:
    drawn = [Mishaps(BAD, "seed").jitter_s(begin) for begin in range(0, END, 1_400)]
    assert all(0 <= jitter_s <= BAD.jitter_s for jitter_s in drawn)
    assert len(set(drawn)) > 50
    assert drawn == [Mishaps(BAD, "seed").jitter_s(begin) for begin in range(0, END, 1_400)]
    assert Mishaps(Course(), "seed").jitter_s(0) == 0
