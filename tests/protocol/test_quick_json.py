"""The quick reader takes only what the strict reader takes, and reads the same in it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skygw.protocol.codec import BadFrame, Read, from_gateway, from_node
from skygw.protocol.frame import Frame
from skygw.protocol.json_text import BrokenJson, Opaque, read_objects
from skygw.protocol.limits import MAX_FRAMES_PER_MESSAGE, MAX_JSON_DEPTH, MAX_JSON_VALUES
from skygw.protocol.quick_json import QuickReader, read_body
from skygw.routers.schemas import DirectBody, read_json, validated
from tests.protocol.json_values import objects, writers
from tests.wire.samples import DIRECTIONS, FILES, name_of, text_of

NOON = "2026-11-22T12:00:00Z"
QUICKLY_READ = [path for path in FILES if path.stem.partition(".")[0] not in DIRECTIONS[path.parent.name].careful]
SAMPLES = [(path.parent.name, text_of(path)) for path in QUICKLY_READ]
QUICK = {
    name: QuickReader({kind: model for kind, model in direction.models.items() if kind not in direction.careful})
    for name, direction in DIRECTIONS.items()
}

SURPRISES = [
    *'{}[]",:\\ \n\t0123456789eE+-.',
    *(
        "true",
        "null",
        "NaN",
        "-Infinity",
        "Infinity",
        "1e999",
        "-1e400",
        "1E+309",
        "1e308",
        "1.0",
        "-0",
        "01",
        "2" * 310,
    ),
    *(
        '"',
        '""',
        "{}",
        "[]",
        ",",
        "\\u0000",
        "\\ud800",
        "\\ud83d\\ude00",
        "\\u0061",
        "\\\\u0000",
        "\x00",
        "\x7f",
        "é",
        "😀",
    ),
    *('"seq":1,', '"data":{},', '"data":null,', '"observedAt":"x",', '"kind":"ping",', '"a":1,"a":2', '"id":null,'),
    *("+00:00", "-14:00", "T24:00:00Z", "T23:59:60Z", "0001-01-01", "9999-12-31", ".123456789", "[" * 40, "]" * 40),
]


def seen(frame: Frame) -> list[tuple[str, type, Any]]:
    """Everything about a frame, its types too: `1 == 1.0 == True`."""
    members = [
        (name, type(value), (value.text, repr(value.value)) if isinstance(value, Opaque) else value)
        for name, value in vars(frame).items()
    ]
    return [("class", type(frame), None), ("set", set, frame.model_fields_set), *members]


def strictly(direction: str, message: str) -> list[tuple[Any, str] | BadFrame] | str:
    """What the strict reader makes of a message, or why the socket ends."""
    try:
        sources = read_objects(message, at_most=MAX_FRAMES_PER_MESSAGE)
    except BrokenJson as broken:
        return str(broken)
    found = [DIRECTIONS[direction]._decode(source) for source in sources]
    return [(seen(one.frame), one.text) if isinstance(one, Read) else one for one in found]


def quickly(direction: str, message: str) -> list[tuple[Any, str]] | None:
    found = QUICK[direction].read(message, message.encode())
    return None if found is None else [(seen(one.frame), one.text) for one in found if isinstance(one, Read)]


def compare(direction: str, message: str) -> bool:
    """Whether the quick reader decided; if so it must agree."""
    found = quickly(direction, message)
    if found is not None:
        assert found == strictly(direction, message)
    return found is not None


@pytest.mark.parametrize("path", QUICKLY_READ, ids=name_of)
def test_every_golden_frame_is_read_quickly_and_as_the_strict_reader_reads_it(path: Path) -> None:
    assert compare(path.parent.name, text_of(path))


@pytest.mark.parametrize("path", [path for path in FILES if path not in QUICKLY_READ], ids=name_of)
def test_what_is_read_by_a_function_of_its_own_is_left_to_it(path: Path) -> None:
    assert not compare(path.parent.name, text_of(path))


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_an_array_is_read_quickly_frame_by_frame(direction: str) -> None:
    texts = [text for name, text in SAMPLES if name == direction]
    assert compare(direction, "[" + ",".join(texts) + "]")
    assert compare(direction, "[ " + " ,\n".join(texts) + " ]")


@settings(max_examples=400)
@given(st.sampled_from(SAMPLES), st.data())
def test_of_damaged_frames_only_those_are_taken_that_the_strict_reader_takes(
    sample: tuple[str, str], data: st.DataObject
) -> None:
    direction, text = sample
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from([0, 0, 1, 1, 2, 5, 20]))
        put = data.draw(st.sampled_from(SURPRISES) | st.just("") | st.text(st.characters(codec="utf-8"), max_size=3))
        text = text[:at] + put + text[at + length :]
    compare(direction, text)


def with_member(text: str, name: str, value: str) -> str:
    """A frame whose member `name` is that text instead, or beside what it has."""
    members = json.loads(text)
    members.pop(name, None)
    rest = json.dumps(members)[1:]
    return f'{{"{name}":{value},{rest}'


VALUES = st.sampled_from(
    [
        *(
            "0",
            "-0",
            "1",
            "-1",
            "1.0",
            "1e0",
            "1E2",
            "0.5",
            "1.5",
            "-0.0",
            "true",
            "false",
            "null",
            "{}",
            "[]",
            '""',
            '"1"',
        ),
        *("9007199254740991", "9007199254740992", "4503599627370496", "4503599627370497", "1" + "0" * 25, "9" * 4_301),
        *('"x"', '"é😀"', '"' + "x" * 64 + '"', '"' + "x" * 65 + '"', '"' + "é" * 100 + '"', '"' + "é" * 101 + '"'),
        *(
            '"' + "x" * 250 + '"',
            '"' + "é" * 251 + '"',
            '"' + "x" * 2_001 + '"',
            '"' + "a" * 64 + '"',
            '"' + "A" * 64 + '"',
        ),
        '"' + "a" * 64 + '\\n"',
        *('"telescope"', '"TELESCOPE"', '"device_snapshot"', '"graceful"', '"completed"', '"invalid"', '"stop"'),
        '"0f8fad5b-d9cb-469f-a165-70867728950e"',
        '"0f8fad5bd9cb469fa16570867728950e"',
        '"{0f8fad5b-d9cb-469f-a165-70867728950e}"',
        '"urn:uuid:0F8FAD5B-D9CB-469F-A165-70867728950E"',
        '["0f8fad5b-d9cb-469f-a165-70867728950e"]',
        '{"0f8fad5b-d9cb-469f-a165-70867728950e":1}',
        *(
            f'"{time}"'
            for time in (
                *(
                    "2026-11-22T12:00:00Z",
                    "2026-11-22T12:00:00.1Z",
                    "2026-11-22T12:00:00.123Z",
                    "2026-11-22T12:00:00.123456Z",
                ),
                *("2026-11-22T12:00:00.1234567Z", "2026-11-22T12:00:00.123456789Z", "2026-11-22T12:00:00,123Z"),
                *("2026-11-22T12:00:00+00:00", "2026-11-22T12:00:00.123+00:00", "2026-11-22T12:00:00.123456+00:00"),
                *("2026-11-22T12:00:00-00:00", "2026-11-22T12:00:00+02:00", "2026-11-22T12:00:00+0200"),
                *("2026-11-22T12:00:00.123456+23:59", "2026-11-22T12:00:00+24:00", "2026-11-22T12:00:00+00:60"),
                *("2026-11-22T24:00:00Z", "2026-11-22T23:59:60Z", "2026-11-22T23:60:00Z", "2026-02-29T00:00:00Z"),
                *("2024-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "2026-00-01T00:00:00Z", "0000-01-01T00:00:00Z"),
                *("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+14:00"),
                *("9999-12-31T23:59:59-01:00", "2026-W47-7T12:00:00Z", "20261122T120000.000Z", "2026-11-22T12:00:00"),
                *("2026-11-22t12:00:00Z", "2026-11-22T12:00:00z", "2026-11-22 12:00:00Z", "٢٠٢٦-11-22T12:00:00Z"),
                *("2026-11-2212:00:00.000Z", "-026-11-22T12:00:00Z", "2026-11-22T12:00:00+00:00:00", "1700000000"),
            )
        ),
    ]
)
NAMES = sorted({name for _, text in SAMPLES for name in json.loads(text)} - {"kind"})
CAMEL = {name: re.sub("_(.)", lambda match: match[1].upper(), name) for name in NAMES}


@settings(max_examples=400)
@given(st.sampled_from(SAMPLES), st.data())
def test_whatever_a_member_holds_both_readers_agree(sample: tuple[str, str], data: st.DataObject) -> None:
    direction, text = sample
    own = [name for name in json.loads(text) if name != "kind"]
    name = data.draw(st.sampled_from(own or NAMES) | st.sampled_from(NAMES))
    value = data.draw(VALUES)
    compare(direction, with_member(text, name, value))
    compare(direction, with_member(text, CAMEL[name], value))


@pytest.mark.parametrize(
    "time", ["2026-11-22T12:00:00Z", "2026-11-22T12:00:00.123456+00:00", "2026-11-22T12:00:00+02:00"]
)
def test_a_time_is_read_quickly_in_any_of_the_usual_layouts(time: str) -> None:
    assert compare("from_node", f'{{"kind":"publish_log","seq":1,"data":{{}},"observed_at":"{time}"}}')


@given(objects, writers)
def test_opaque_data_is_the_same_text_and_the_same_value_for_both(
    data: dict[str, Any], writer: json.JSONEncoder
) -> None:
    compare("from_node", f'{{"kind":"publish_log","seq":1,"data":{writer.encode(data)},"observed_at":"{NOON}"}}')


@settings(max_examples=150)
@given(st.integers(0, 320), st.integers(0, 320), st.sampled_from(["", "e", "E", "e+", "E+", "e-"]), st.integers(0, 400))
def test_a_number_beyond_a_double_is_never_taken(before: int, behind: int, sign: str, exponent: int) -> None:
    digits = "7" * (before + 1) + ("." + "3" * behind if behind else "") + (f"{sign}{exponent}" if sign else "")
    message = f'{{"kind":"publish_log","seq":1,"data":{{"a":[{{"b":{digits}}}]}},"observed_at":"{NOON}"}}'
    taken = compare("from_node", message)
    assert taken == isinstance(from_node.decode(message)[0], Read)


@pytest.mark.parametrize(
    "data",
    [
        '{"a":1,"a":1}',
        r'{"a":1,"\u0061":1}',
        '{"x":[{"a":{"b":1,"b":2}}]}',
        '{"a":NaN}',
        '{"a":[-Infinity]}',
        '{"a":1e999}',
        '{"a":' + "9" * 5_000 + "}",
        r'{"a":"\u0000"}',
        r'{"\u0000":1}',
        r'{"a":"\ud800"}',
        r'{"a":"\udc00\ud800"}',
        '{"a":' + "[" * MAX_JSON_DEPTH + "]" * MAX_JSON_DEPTH + "}",
        '{"a":[' + "0," * MAX_JSON_VALUES + "0]}",
        '{"a":01}',
        '{"a":1,}',
        '{"a":"\t"}',
        "[]",
        "null",
    ],
)
def test_what_no_frame_may_hold_is_left_to_the_strict_reader(data: str) -> None:
    message = f'{{"kind":"publish_log","seq":7,"data":{data},"observed_at":"{NOON}"}}'
    assert quickly("from_node", message) is None
    assert quickly("from_node", f"[{message},{message}]") is None


@pytest.mark.parametrize(
    "message",
    [
        "",
        "{}",
        "[]]",
        "[{}]",
        "17",
        '{"kind":["ping"]}',
        '{"kind":"nope"}',
        '{"kind":"ping","kind":"ping"}',
        '{"kind":"ping"} {"kind":"ping"}',
        '{"kind":"publish_log","seq":1,"data":{},"observed_at":"x","observedAt":"x"}',
        "[" + ",".join(['{"kind":"ping"}'] * (MAX_FRAMES_PER_MESSAGE + 1)) + "]",
    ],
)
def test_a_message_with_anything_wrong_is_left_to_the_strict_reader(message: str) -> None:
    assert quickly("from_node", message) is None


def test_many_openings_in_a_shallow_frame_are_read_quickly() -> None:
    data = json.dumps({f"axis{number}": [{"at": number}, "[{"] for number in range(200)})
    assert compare("from_node", f'{{"kind":"publish_log","seq":1,"data":{data},"observed_at":"{NOON}"}}')


def test_unknown_members_are_passed_over_by_both() -> None:
    assert compare("from_node", '{"kind":"ping","id":"a","colour":{"x":[1]}}')
    assert quickly("from_node", '{"kind":"ping","id":"a","colour":{"x":1e999}}') is None


def test_a_gateway_frame_is_read_by_the_same_rules() -> None:
    message = '{"kind":"direct_credit","id":"0f8fad5b-d9cb-469f-a165-70867728950e","bytes":1.0}'
    assert quickly("from_gateway", message) is None
    assert isinstance(from_gateway.decode(message)[0], BadFrame)


BODY_VALUES = st.sampled_from(
    [
        "{}",
        '{"a": 1.10}',
        "[]",
        "null",
        '"x"',
        "5",
        "5.5",
        "-1",
        "true",
        '{"a":1,"a":1}',
        '{"a":1e999}',
        r'{"a":"\u0000"}',
    ]
)


@settings(max_examples=300)
@given(
    st.dictionaries(
        st.sampled_from(
            ["operation", "params", "timeoutS", "timeout_s", "offset", "requestId", "request_id", "actor", "x"]
        ),
        BODY_VALUES,
        max_size=5,
    )
)
def test_a_body_is_taken_only_if_the_strict_reader_takes_it_and_is_the_same_then(members: dict[str, str]) -> None:
    text = ",".join(f'"{name}":{value}' for name, value in {"operation": '"log.tail"', **members}.items())
    raw = f"{{{text}}}".encode()
    quick = read_body(DirectBody, raw)
    if quick is not None:
        assert vars(quick) == vars(validated(DirectBody, read_json(raw)))


def test_an_ordinary_body_is_read_quickly_and_keeps_the_text_of_what_is_carried() -> None:
    body = read_body(
        DirectBody, b'{"operation":"device.read","params":{"snake_key": 1.10},"timeoutS":5,"requestId":"a"}'
    )
    assert body is not None
    assert (body.params.text, body.timeout_s, body.request_id) == ('{"snake_key": 1.10}', 5.0, "a")


def test_a_body_that_is_not_utf_8_is_left_to_the_strict_reader() -> None:
    assert read_body(DirectBody, b'{"operation":"\xff"}') is None


def test_without_the_compiled_parsers_every_frame_is_read_strictly() -> None:
    """As on a node, which need not have them."""
    program = (
        "import sys; sys.modules['jiter'] = None\n"
        "from skygw.protocol.codec import encode, from_node\n"
        "print(*[encode(read.frame) for read in from_node.decode(sys.argv[1])])\n"
        "print('skygw.protocol.quick_json' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, '[{"kind": "ping", "id": "a"}, {"kind": "pong"}]'],
        stdout=subprocess.PIPE,
        check=True,
    )
    assert said.stdout.split() == [b'{"kind":"ping","id":"a"}', b'{"kind":"pong"}', b"False"]
