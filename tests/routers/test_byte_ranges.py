"""Ranges and entity tags as RFC 9110 has them."""

import pytest

from skygw.routers.byte_ranges import ByteRange, NotSatisfiable, asked_range, names, names_strongly


@pytest.mark.parametrize(
    ("field", "found"),
    [
        (None, None),
        ("bytes=0-99", ByteRange(0, 100)),
        ("bytes=0-0", ByteRange(0, 1)),
        ("bytes=99-", ByteRange(99, 1)),
        ("bytes=-1", ByteRange(99, 1)),
        ("bytes=-1000", ByteRange(0, 100)),
        ("bytes=10-1000", ByteRange(10, 90)),
        (" BYTES = 1-2 ", ByteRange(1, 2)),
        # What is no single range of bytes is as if it were not there (§14.2).
        ("bytes=2-1", None),
        ("bytes=-", None),
        ("bytes=1-2,3-4", None),
        ("bytes=a-b", None),
        ("bytes 1-2", None),
        ("pixels=1-2", None),
        ("bytes=１-２", None),
        ("bytes=" + "1" * 31 + "-", None),
        ("", None),
    ],
)
def test_one_range_is_read_and_anything_else_is_the_whole(field: str | None, found: ByteRange | None) -> None:
    assert asked_range(field, if_range=None, etag='"a"', size=100) == found


@pytest.mark.parametrize("field", ["bytes=100-", "bytes=100-200", "bytes=-0", f"bytes={10**29}-"])
def test_what_lies_beyond_the_end_is_not_satisfiable(field: str) -> None:
    with pytest.raises(NotSatisfiable):
        asked_range(field, if_range=None, etag='"a"', size=100)


@pytest.mark.parametrize(
    ("if_range", "is_part"), [('"a"', True), ('"b"', False), ('W/"a"', False), ("Sun, 22 Nov 2026 13:00:00 GMT", False)]
)
def test_a_range_of_something_else_is_the_whole(if_range: str, is_part: bool) -> None:
    assert (asked_range("bytes=0-1", if_range=if_range, etag='"a"', size=100) is not None) is is_part


def test_the_range_that_is_answered_is_named_with_its_last_byte() -> None:
    assert ByteRange(10, 5).content_range(100) == "bytes 10-14/100"


@pytest.mark.parametrize(
    ("field", "weakly", "strongly"),
    [
        ('"a"', True, True),
        ('W/"a"', True, False),
        ('"b", "a"', True, True),
        ("*", True, True),
        ('"ab"', False, False),
        ("a", False, False),
        ("", False, False),
    ],
)
def test_entity_tags_are_compared_as_the_field_wants(field: str, weakly: bool, strongly: bool) -> None:
    assert names(field, '"a"') is weakly
    assert names_strongly(field, '"a"') is strongly
