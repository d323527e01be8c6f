"""The strict reader: the same values as any JSON reader, the text of each member, and what it will not have."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.protocol.json_text import BrokenJson, Opaque, read_object, read_objects
from skygw.protocol.limits import MAX_JSON_DEPTH, MAX_JSON_DEPTH_READ, MAX_JSON_VALUES
from tests.protocol.json_values import objects, texts, values, writers


@given(objects, writers)
def test_any_valid_object_is_read_as_every_json_reader_reads_it(
    value: dict[str, Any], writer: json.JSONEncoder
) -> None:
    found = read_object(writer.encode(value))
    assert found.flaw is None
    assert {key: member.value for key, member in found.members.items()} == value


@given(objects, writers)
def test_the_text_of_a_member_is_its_own_slice_of_the_document(value: dict[str, Any], writer: json.JSONEncoder) -> None:
    document = writer.encode(value)
    for key, member in read_object(document).members.items():
        text = document[member.start : member.end]
        assert text == text.strip()
        assert json.loads(text) == value[key]


@given(st.lists(objects, max_size=5), writers, st.sampled_from(["", " ", "\r\n\t"]))
def test_an_array_gives_each_of_its_objects_with_its_own_text(
    several: list[dict[str, Any]], writer: json.JSONEncoder, around: str
) -> None:
    found = read_objects(around + writer.encode(several) + around, at_most=5)
    assert [json.loads(one.text) for one in found] == several


@given(st.text(max_size=60))
def test_arbitrary_text_is_read_or_refused_as_broken(document: str) -> None:
    try:
        found = read_objects(document, at_most=10)
    except BrokenJson:
        return
    assert all(isinstance(json.loads(one.text), dict) for one in found)


@given(st.text(st.sampled_from('{}[]",:\\u0eE+-.1 \n'), max_size=40))
def test_text_made_of_json_marks_is_taken_only_if_it_is_json(document: str) -> None:
    try:
        read_object(document)
    except BrokenJson:
        with pytest.raises((ValueError, AssertionError)):
            assert isinstance(json.loads(document), dict)
    else:
        assert isinstance(json.loads(document), dict)


@given(objects, st.data())
def test_a_document_cut_short_is_broken(value: dict[str, Any], data: st.DataObject) -> None:
    document = json.dumps(value)
    cut = data.draw(st.integers(0, len(document) - 1))
    with pytest.raises(BrokenJson):
        read_object(document[:cut])


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("NaN", "NaN"),
        ("-Infinity", "-Infinity"),
        ("1e999", "beyond a double"),
        ("-1e999", "beyond a double"),
        ("1" + "0" * 5_000, "too many digits"),
        (r'"a\u0000b"', "U+0000"),
        (r'{"\u0000": 1}', "U+0000"),
        (r'"\ud800"', "surrogate"),
        (r'["\udc00\ud800"]', "surrogate"),
        ('{"k": 1, "k": 1}', "twice"),
        (r'{"k": 1, "\u006b": 1}', "twice"),
        ("[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH, "deep"),
    ],
)
def test_what_no_frame_may_hold_is_a_flaw_and_the_rest_stays_readable(member: str, says: str) -> None:
    found = read_object(f'{{"seq": 7, "data": {member}, "id": "x"}}')
    assert says in (found.flaw or "")
    assert (found.value("seq"), found.value("id")) == (7, "x")


@pytest.mark.parametrize(
    "document",
    [
        '{"a":1,"a":2}',
        r'{"a":1,"\u0061":2}',
    ],
)
def test_a_key_that_stands_twice_at_the_top_is_a_flaw_in_any_spelling(document: str) -> None:
    assert "twice" in (read_object(document).flaw or "")


def test_a_surrogate_pair_is_an_ordinary_character() -> None:
    found = read_object(r'{"a":"\ud83d\ude00"}')
    assert found.flaw is None
    assert found.value("a") == "😀"


def test_the_flaw_of_one_object_is_not_held_against_its_neighbours() -> None:
    deep = "[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH
    document = f'[{{"a":1}},{{"a":NaN}},{{"a":2}},{{"a":{deep}}},{{"a":"\\u0000"}},{{"a":3}}]'
    found = read_objects(document, at_most=6)
    assert [one.flaw is None for one in found] == [True, False, True, False, False, True]


def test_an_object_as_deep_as_allowed_may_stand_in_an_array() -> None:
    inner = MAX_JSON_DEPTH - 1
    document = '{"a":' + "[" * inner + "]" * inner + "}"
    assert read_object(document).flaw is None
    assert [one.flaw for one in read_objects(f"[{document}]", at_most=1)] == [None]


def test_brackets_inside_strings_do_not_count_as_depth() -> None:
    assert read_object('{"a":"' + "[{" * 1_000 + '"}').flaw is None
    assert read_object('{"a":"\\"' + "[" * 1_000 + '\\\\"}').flaw is None


@pytest.mark.parametrize("opening", ["[", '{"a":', '[{"a":'])
def test_nesting_beyond_reading_is_refused_before_anything_is_built(opening: str) -> None:
    with pytest.raises(BrokenJson, match="deep"):
        read_object('{"a":' + opening * (MAX_JSON_DEPTH_READ + 1))


def test_too_many_values_are_refused_before_anything_is_built() -> None:
    with pytest.raises(BrokenJson, match="values"):
        read_object('{"a":[' + "0," * MAX_JSON_VALUES + "0]}")


def test_commas_inside_strings_are_no_values() -> None:
    assert read_object('{"a":"' + "," * (MAX_JSON_VALUES + 1) + '"}').flaw is None


@pytest.mark.parametrize(
    "hostile",
    [
        '{"a":"' + '\\"' * 30_000,
        '{"a":"' + "\\" * 60_001,
        '{"a":' + '"' * 60_000,
        " " * 60_000,
        '{"a":1' + " " * 60_000,
        '{"a":-' + "9" * 60_000,
        '{"a":' + "]" * 60_000,
        ",[" * 30_000,
        '{"a":"' + '"\\' * 30_000,
    ],
)
def test_a_long_broken_document_is_refused_as_broken(hostile: str) -> None:
    with pytest.raises(BrokenJson):
        read_objects(hostile, at_most=256)


def test_an_array_of_more_frames_than_allowed_is_refused_without_reading_on() -> None:
    # What stands behind the limit is not JSON at all, and is not what is complained about.
    with pytest.raises(BrokenJson, match="more than 2 frames"):
        read_objects("[{},{},{},nonsense", at_most=2)


@given(values)
def test_an_opaque_value_of_our_own_is_read_back_as_it_was_written(value: Any) -> None:
    opaque = Opaque.of(value)
    found = read_object(f'{{"data":{opaque.text}}}')
    assert found.flaw is None
    assert found.value("data") == value


@given(texts, texts)
def test_two_opaque_values_are_equal_when_their_bytes_are(one: str, other: str) -> None:
    assert (Opaque.of(one) == Opaque.of(other)) == (one == other)
    assert Opaque('{"a": 1}', {"a": 1}) != Opaque('{"a":1}', {"a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\x00", {"\x00": 1}, ("\x00",), "\ud800"])
def test_an_opaque_value_that_no_reader_takes_cannot_be_made(value: Any) -> None:
    with pytest.raises(ValueError, match=r"JSON|U\+0000|surrogates"):
        Opaque.of(value)


def test_a_backslash_before_u0000_is_only_text() -> None:
    assert Opaque.of("\\u0000").value == "\\u0000"
