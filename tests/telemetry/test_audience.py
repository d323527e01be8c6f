"""Who listens to what: a filter fits by the hub's records, and is found from either side."""

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest

from skygw.ids import InstallId
from skygw.protocol.streams import StreamFilter
from skygw.telemetry.audience import About, Audience, Index, Want

T, O, D, I = uuid4(), uuid4(), uuid4(), InstallId(uuid4())  # noqa: E741


@dataclass(frozen=True)
class Thing:
    """Something a filter can be asked about."""

    install_id: InstallId | None = I
    observatory_uid: UUID | None = O
    telescope_uid: UUID | None = T
    device_uid: UUID | None = D
    device_type: str | None = "mount"
    parts: tuple[UUID, ...] = ()


ELSEWHERE = uuid4()
FILTERS = [
    (StreamFilter(), True),
    (StreamFilter(telescope_uid=(T,)), True),
    (StreamFilter(telescope_uid=(ELSEWHERE, T)), True),
    (StreamFilter(telescope_uid=(ELSEWHERE,)), False),
    (StreamFilter(telescope_uid=()), False),
    (StreamFilter(observatory_uid=(O,), device_type=("mount",)), True),
    (StreamFilter(observatory_uid=(O,), device_type=("camera",)), False),
    (StreamFilter(device_uid=(D,)), True),
    (StreamFilter(device_uid=(ELSEWHERE,), telescope_uid=(T,)), False),
    (StreamFilter(install_id=(I,)), True),
    (StreamFilter(install_id=(ELSEWHERE,)), False),
    (StreamFilter(device_type=("mount", "camera")), True),
]


@pytest.mark.parametrize(("wanted", "fits"), FILTERS)
def test_a_filter_is_found_from_the_thing_and_the_thing_from_the_filter(wanted: StreamFilter, *, fits: bool) -> None:
    audience, index = Audience[str](), Index[Thing]()
    audience.add("listener", Want(wanted))
    index.add(Thing())
    assert audience.of(Thing()) == (["listener"] if fits else [])
    assert index.matching(Want(wanted)) == ([Thing()] if fits else [])


def test_an_instrument_is_found_by_its_parts() -> None:
    whole = Thing(device_uid=None, parts=(D, ELSEWHERE))
    audience, index = Audience[str](), Index[Thing]()
    audience.add("listener", Want(StreamFilter(device_uid=(ELSEWHERE,))))
    index.add(whole)
    assert audience.of(whole) == ["listener"]
    assert index.matching(Want(StreamFilter(device_uid=(D,)))) == [whole]


def test_nobody_sees_what_they_may_not() -> None:
    class OnlyShared:
        observatory_uid = O

        def may_see(self, about: About) -> bool:
            return about.telescope_uid is None

    audience = Audience[str]()
    audience.add("node", Want(StreamFilter(), OnlyShared()))
    assert audience.of(Thing()) == []
    assert audience.of(Thing(telescope_uid=None)) == ["node"]


def test_whoever_leaves_is_told_nothing_and_leaves_nothing_behind() -> None:
    audience = Audience[str]()
    audience.add("one", Want(StreamFilter(telescope_uid=(T,))))
    audience.add("other", Want(StreamFilter(telescope_uid=(T,))))
    before = audience.generation
    audience.remove("one")
    audience.remove("one")
    assert audience.of(Thing()) == ["other"]
    assert audience.generation == before + 1
    audience.remove("other")
    assert (len(audience), audience.of(Thing())) == (0, [])


def test_what_was_taken_out_of_an_index_is_not_found() -> None:
    index = Index[Thing]()
    index.add(Thing())
    index.remove(Thing())
    index.remove(Thing())
    assert index.matching(Want(StreamFilter())) == []


def test_those_who_want_something_else_are_not_even_asked() -> None:
    class Asked:
        def __init__(self) -> None:
            self.observatory_uid = ELSEWHERE
            self.times = 0

        def may_see(self, about: About) -> bool:
            self.times += 1
            return True

    audience, others = Audience[int](), Asked()
    for number in range(100):
        audience.add(number, Want(StreamFilter(telescope_uid=(uuid4(),)), others))
        audience.add(-1 - number, Want(StreamFilter(), others))
    audience.add(100, Want(StreamFilter(telescope_uid=(T,))))
    assert audience.of(Thing()) == [100]
    assert others.times == 0


@pytest.mark.parametrize(
    ("wanted", "is_told"),
    [
        (StreamFilter(), True),
        (StreamFilter(device_uid=(ELSEWHERE,)), True),  # it could have been of that device
        (StreamFilter(telescope_uid=(T,)), True),
        (StreamFilter(telescope_uid=(ELSEWHERE,)), False),
        (StreamFilter(install_id=(ELSEWHERE,)), False),
    ],
)
def test_a_gap_is_for_everybody_who_might_have_wanted_what_is_missing(wanted: StreamFilter, *, is_told: bool) -> None:
    audience = Audience[str]()
    audience.add("listener", Want(wanted))
    assert audience.of_gap(Thing(device_uid=None, device_type=None)) == (["listener"] if is_told else [])
