"""Messages into frames and back: what is carried, what is refused, and that a refusal can always be said."""

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.protocol.codec import BadFrame, ProtocolViolation, Read, encode, from_gateway, from_node
from skygw.protocol.gateway_frames import EventCommand
from skygw.protocol.limits import MAX_FRAMES_PER_MESSAGE, MAX_TEXT_BYTES
from skygw.protocol.node_frames import Error, ErrorCode, NodeFrame, Ping, PublishLog
from tests.protocol.json_values import objects, writers

UID = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOON = "2026-11-22T12:00:00Z"


def a_log(seq: int, data: str = "{}", observed_at: str = NOON) -> str:
    return f'{{"kind":"publish_log","seq":{seq},"data":{data},"observed_at":"{observed_at}"}}'


def the_one_frame(message: str) -> NodeFrame:
    [read] = from_node.decode(message)
    assert not isinstance(read, BadFrame), read
    return read.frame


def the_one_refusal(message: str) -> BadFrame:
    [bad] = from_node.decode(message)
    assert isinstance(bad, BadFrame), bad
    return bad


@given(objects, writers)
def test_opaque_data_goes_in_and_out_byte_for_byte(data: dict[str, Any], writer: json.JSONEncoder) -> None:
    text = writer.encode(data)
    frame = the_one_frame(a_log(1, text))
    assert isinstance(frame, PublishLog)
    assert frame.data.text == text
    assert f'"data":{text}' in encode(frame)


@given(objects, writers)
def test_a_frame_written_and_read_again_is_the_same_frame(data: dict[str, Any], writer: json.JSONEncoder) -> None:
    frame = the_one_frame(a_log(1, writer.encode(data)))
    assert the_one_frame(encode(frame)) == frame


def test_numbers_in_opaque_data_keep_every_digit() -> None:
    frame = the_one_frame(a_log(1, '{"ra":1.10000000000000000000001,"n":123456789012345678901234567890,"z":-0.0e0}'))
    assert "1.10000000000000000000001" in encode(frame)
    assert "123456789012345678901234567890" in encode(frame)
    assert "-0.0e0" in encode(frame)


@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_an_arbitrary_text_message_is_frames_refusals_or_a_violation(message: str) -> None:
    try:
        read = from_node.decode(message)
    except ProtocolViolation:
        return
    assert all(isinstance(one, Read | BadFrame) for one in read)


KINDS = st.sampled_from([*sorted(from_node.models), "nope", "\ud800", "\x00"]) | st.none() | st.integers()
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([UID, NOON]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = sorted({name for model in from_node.models.values() for name in model.model_fields} - {"kind"})


@given(KINDS, st.dictionaries(st.sampled_from(MEMBERS), ANYTHING, max_size=8))
def test_whatever_a_member_holds_the_frame_is_read_or_refused_and_the_refusal_can_be_sent(
    kind: Any, members: dict[str, Any]
) -> None:
    for one in from_node.decode(json.dumps({"kind": kind, **members})):
        if isinstance(one, BadFrame):
            answer = Error(code=ErrorCode.INVALID, message=one.message, id=one.id)
            assert the_one_frame(encode(answer)) == answer
        else:
            assert the_one_frame(encode(one.frame)) == one.frame


def test_either_spelling_is_read() -> None:
    snake = f'{{"kind":"publish_log","seq":1,"data":{{}},"observed_at":"{NOON}"}}'
    camel = f'{{"kind":"publish_log","seq":1,"data":{{}},"observedAt":"{NOON}"}}'
    assert the_one_frame(snake) == the_one_frame(camel)


def test_both_spellings_of_one_key_are_refused_even_if_they_agree() -> None:
    bad = the_one_refusal(f'{{"kind":"publish_log","seq":4,"data":{{}},"observed_at":"{NOON}","observedAt":"{NOON}"}}')
    assert "both spellings" in bad.message
    assert bad.seq == 4


def test_the_keys_of_opaque_data_are_left_alone() -> None:
    frame = the_one_frame(a_log(1, '{"observedAt":1,"observed_at":2}'))
    assert '"data":{"observedAt":1,"observed_at":2}' in encode(frame)


def test_an_unknown_member_is_ignored() -> None:
    assert the_one_frame('{"kind":"ping","id":"a","colour":{"x":[1]}}') == Ping(id="a")


def test_an_unknown_kind_is_named_as_such() -> None:
    bad = the_one_refusal(f'{{"kind":"teleport","id":"{UID}"}}')
    assert bad.unknown_kind
    assert (bad.kind, bad.id, bad.seq) == ("teleport", UID, None)


@pytest.mark.parametrize("message", ["{}", '{"kind":null}', '{"kind":7}', '{"kind":["hello"]}'])
def test_a_frame_without_a_kind_is_refused(message: str) -> None:
    assert "kind" in the_one_refusal(message).message


def test_one_bad_frame_spoils_none_of_its_neighbours() -> None:
    deep = '{"a":' + "[" * 40 + "]" * 40 + "}"
    message = (
        "[" + ",".join([a_log(1), a_log(2, deep), a_log(3, '{"a":NaN}'), a_log(4), '{"kind":"x"}', a_log(5)]) + "]"
    )
    read = from_node.decode(message)
    assert [isinstance(one, Read) for one in read] == [True, False, False, True, False, True]
    assert [one.seq for one in read if isinstance(one, BadFrame)] == [2, 3, None]


def test_each_frame_of_an_array_has_its_own_text() -> None:
    first, second = a_log(1, '{"a": 1}'), a_log(2)
    assert [one.text for one in from_node.decode(f"[ {first} ,\n{second}]") if isinstance(one, Read)] == [first, second]


def test_an_array_with_something_that_is_no_object_is_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="expected an object"):
        from_node.decode(f"[{a_log(1)},17]")


def test_a_message_over_the_limit_is_a_violation_counted_in_bytes() -> None:
    fits = '{"kind":"ping","x":"' + "é" * 30_000 + '"}'
    assert len(fits.encode()) <= MAX_TEXT_BYTES
    assert the_one_frame(fits) == Ping()
    with pytest.raises(ProtocolViolation, match="bytes"):
        from_node.decode('{"kind":"ping","x":"' + "é" * 33_000 + '"}')


def test_more_frames_than_allowed_are_a_violation() -> None:
    full = ['{"kind":"ping"}'] * MAX_FRAMES_PER_MESSAGE
    assert len(from_node.decode("[" + ",".join(full) + "]")) == MAX_FRAMES_PER_MESSAGE
    with pytest.raises(ProtocolViolation, match="frames in one message"):
        from_node.decode("[" + ",".join([*full, '{"kind":"ping"}']) + "]")


def test_an_empty_array_is_nothing_and_no_violation() -> None:
    assert from_node.decode("[]") == []


@pytest.mark.parametrize("seq", ["0", "-1", "1.0", "true", '"1"', "9007199254740992", "null"])
def test_a_sequence_that_is_none_is_refused_and_not_nacked(seq: str) -> None:
    bad = the_one_refusal(f'{{"kind":"publish_log","seq":{seq},"data":{{}},"observed_at":"{NOON}"}}')
    assert bad.seq is None


def test_a_bad_durable_frame_keeps_its_sequence_so_that_it_can_be_nacked() -> None:
    assert the_one_refusal('{"kind":"publish_event","seq":9}').seq == 9


def test_the_sequence_of_a_frame_that_is_not_durable_is_no_business_of_nack() -> None:
    assert the_one_refusal('{"kind":"direct_response_chunk","seq":9}').seq is None


@pytest.mark.parametrize(
    "when",
    [
        "1700000000",
        "2026-11-22",
        "2026-11-22T12:00:00",
        "2026-11-22 12:00:00Z",
        "2026-11-22T12:00:00Z\\n",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-01:00",
        "2026-13-01T00:00:00Z",
        "",
    ],
)
def test_what_is_no_time_with_an_offset_is_refused(when: str) -> None:
    assert "observed_at" in the_one_refusal(a_log(1, observed_at=when)).message


@pytest.mark.parametrize("silence", ["true", '"5"', "-1", "1" + "0" * 400])
def test_what_is_no_span_of_seconds_is_refused(silence: str) -> None:
    bad = the_one_refusal(
        '{"kind":"publish_snapshot","stream":"device_snapshot","data":{},"live_seq":0,'
        f'"observed_at":"{NOON}","max_silence_s":{silence}}}'
    )
    assert "max_silence_s" in bad.message


@pytest.mark.parametrize("data", ["[]", "1", '"x"', "null"])
def test_opaque_data_must_be_an_object(data: str) -> None:
    assert "data" in the_one_refusal(a_log(1, data)).message


def test_what_a_refused_frame_may_not_hold_is_not_said_back() -> None:
    bad = the_one_refusal(r'{"kind":"no\u0000pe","id":"\ud800\u0000"}')
    assert (bad.kind, bad.id) == ("no?pe", "??")


def test_a_command_without_a_deadline_is_read_by_the_node() -> None:
    message = f'{{"kind":"event_command","command_id":"{UID}","command":{{}},"epoch":1,"t_ms":5,"issued_at":"{NOON}"}}'
    [read] = from_gateway.decode(message)
    assert isinstance(read, Read)
    assert isinstance(read.frame, EventCommand)
    assert read.frame.deadline_ms is None
    assert from_gateway.decode(encode(read.frame)) == [Read(read.frame, encode(read.frame))]


@pytest.mark.parametrize("epoch", ["true", '"1"', "-1", "1.0", "9007199254740992"])
def test_an_epoch_is_a_whole_number_that_every_reader_carries_exactly(epoch: str) -> None:
    [bad] = from_gateway.decode(
        f'{{"kind":"cancel_command","command_id":"{UID}","mode":"immediate","epoch":{epoch},"t_ms":5}}'
    )
    assert isinstance(bad, BadFrame)
    assert "epoch" in bad.message


@pytest.mark.parametrize("kept", ['"last_epoch":9007199254740991', f'"last_fences":{{"{UID}":9007199254740991}}'])
def test_a_hello_cannot_push_an_epoch_or_a_fence_to_where_counting_ends(kept: str) -> None:
    bad = the_one_refusal(
        f'{{"kind":"hello","install_id":"{UID}","instance_uid":"{UID}","node_type":"telescope","software_version":"1",'
        f'"boot_id":"{UID}","outbox_uid":"{UID}",{kept}}}'
    )
    assert "less than or equal" in bad.message


def test_members_that_are_none_are_left_out() -> None:
    assert encode(Ping()) == '{"kind":"ping"}'


def test_a_refusal_names_the_frame_by_its_command_first() -> None:
    other = str(UUID(int=1))
    assert the_one_refusal(f'{{"kind":"publish_command_result","command_id":"{UID}","id":"{other}"}}').id == UID
