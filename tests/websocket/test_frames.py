"""Frames by RFC 6455: whole messages come out however the bytes are cut, and a broken rule ends the reading."""

import os
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode, apply_mask  # type: ignore[attr-defined]
from websockets.protocol import Protocol, Side, State

from skygw.websocket.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    Close,
    Code,
    Event,
    Flaw,
    FrameReader,
    Ping,
    Pong,
    close_payload,
    frame,
    may_be_received,
    message_frame,
)

MASK = b"\x01\x02\x03\x04"
LIMIT = 1 << 16


def read(data: bytes, *, at_once: int | None = None, limit: int = LIMIT, masked: bool = True) -> list[Event]:
    """What a reader makes of bytes that come in pieces of `at_once`."""
    reader = FrameReader(masked=masked, max_message_bytes=limit)
    step = at_once or max(len(data), 1)
    return [event for start in range(0, len(data), step) for event in reader.feed(data[start : start + step])]


def fragment(opcode: int, payload: bytes, *, last: bool) -> bytes:
    whole = frame(opcode, payload, MASK)
    return whole if last else bytes([whole[0] & 0x7F]) + whole[1:]


def test_the_mask_of_the_library_is_the_one_of_the_rfc() -> None:
    """RFC 6455 §5.3; it is not part of that library's documented interface."""
    payload = os.urandom(1_001)
    assert apply_mask(payload, MASK) == bytes(byte ^ MASK[index % 4] for index, byte in enumerate(payload))
    assert apply_mask(memoryview(payload)[1:], MASK) == apply_mask(payload[1:], MASK)


def test_the_examples_of_the_rfc_are_read_and_written() -> None:
    """RFC 6455 §5.7."""
    masked = bytes.fromhex("818537fa213d7f9f4d5158")
    assert read(masked) == ["Hello"]
    assert frame(TEXT, b"Hello", bytes.fromhex("37fa213d")) == masked
    assert read(bytes.fromhex("810548656c6c6f"), masked=False) == ["Hello"]
    assert read(bytes.fromhex("010348656c80026c6f"), masked=False) == ["Hello"]
    assert message_frame("Hello") == bytes.fromhex("810548656c6c6f")
    assert read(bytes.fromhex("890548656c6c6f"), masked=False) == [Ping(b"Hello")]


messages = st.one_of(st.text(max_size=300), st.binary(max_size=300))


@given(messages=st.lists(messages, max_size=6), cut=st.integers(1, 40), seed=st.integers(0, 1 << 30))
def test_messages_come_out_whole_however_they_are_cut_and_fragmented(
    messages: list[str | bytes], cut: int, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    wire, expected = b"", list[Event]()
    for message in messages:
        payload = message.encode() if isinstance(message, str) else message
        opcode = TEXT if isinstance(message, str) else BINARY
        while chance.random() < 0.5:
            size = chance.randint(0, len(payload))
            wire += fragment(opcode, payload[:size], last=False)
            payload, opcode = payload[size:], 0
            if chance.random() < 0.3:
                wire += frame(PING, b"between", MASK)
                expected.append(Ping(b"between"))
        wire += fragment(opcode, payload, last=True)
        expected.append(message)
    assert read(wire, at_once=cut) == expected
    assert read(wire) == expected


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 70_000])
def test_every_width_of_a_length_is_read_and_written(size: int) -> None:
    payload = os.urandom(size)
    for mask in (None, MASK):
        wire = frame(BINARY, payload, mask)
        assert read(wire, masked=mask is not None, limit=size) == [payload]
        assert read(wire, masked=mask is not None, limit=size, at_once=1_000) == [payload]


def test_every_frame_is_what_another_implementation_writes() -> None:
    for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
        for size in (0, 5, 125):
            payload = b"\x03\xe8" + b"a" * size if opcode == CLOSE and size < 124 else b"a" * size
            theirs = Frame(Opcode(opcode), payload).serialize(mask=False)
            assert frame(opcode, payload) == theirs


FLAWS = {
    "an unmasked frame": (b"\x81\x00", Code.PROTOCOL_ERROR),
    "a reserved bit": (b"\xc1\x80" + MASK, Code.PROTOCOL_ERROR),
    "an opcode for data that is not defined": (b"\x83\x80" + MASK, Code.PROTOCOL_ERROR),
    "an opcode for control that is not defined": (b"\x8b\x80" + MASK, Code.PROTOCOL_ERROR),
    "a continuation of nothing": (b"\x80\x80" + MASK, Code.PROTOCOL_ERROR),
    "a message within a message": (fragment(TEXT, b"a", last=False) + frame(TEXT, b"b", MASK), Code.PROTOCOL_ERROR),
    "a fragmented ping": (b"\x09\x80" + MASK, Code.PROTOCOL_ERROR),
    "a long ping": (b"\x89\xfe\x00\x7e" + MASK, Code.PROTOCOL_ERROR),
    "a length that could be shorter": (b"\x82\xfe\x00\x05" + MASK, Code.PROTOCOL_ERROR),
    "a length of eight bytes that could be two": (b"\x82\xff" + (65_535).to_bytes(8) + MASK, Code.PROTOCOL_ERROR),
    "a length with the highest bit": (b"\x82\xff" + (1 << 63).to_bytes(8) + MASK, Code.PROTOCOL_ERROR),
    "a close of one byte": (frame(CLOSE, b"\x03", MASK), Code.PROTOCOL_ERROR),
    "a close code that is never sent": (frame(CLOSE, b"\x03\xed", MASK), Code.PROTOCOL_ERROR),
    "a close reason that is no UTF-8": (frame(CLOSE, b"\x03\xe8\xff", MASK), Code.NOT_UTF8),
    "a text that is no UTF-8": (frame(TEXT, b"\xed\xa0\x80", MASK), Code.NOT_UTF8),
    "a message over the limit": (b"\x82\xff" + (LIMIT + 1).to_bytes(8) + MASK, Code.TOO_BIG),
    "a text that ends within a character": (frame(TEXT, b"\xe2\x82", MASK), Code.NOT_UTF8),
}


@pytest.mark.parametrize(("wire", "code"), FLAWS.values(), ids=FLAWS.keys())
@pytest.mark.parametrize("at_once", [None, 1])
def test_a_broken_rule_ends_the_reading(wire: bytes, code: Code, at_once: int | None) -> None:
    before = frame(TEXT, b"before", MASK)
    events = read(before + wire + frame(TEXT, b"behind", MASK), at_once=at_once)
    assert events[0] == "before"
    (flaw,) = events[1:]
    assert isinstance(flaw, Flaw)
    assert flaw.code == code
    assert flaw.reason


def test_fragments_count_together_against_the_limit_and_are_let_go() -> None:
    reader = FrameReader(masked=True, max_message_bytes=1_000)
    assert reader.feed(fragment(BINARY, b"x" * 600, last=False)) == []
    (flaw,) = reader.feed(fragment(0, b"x" * 600, last=False))
    assert isinstance(flaw, Flaw)
    assert flaw.code is Code.TOO_BIG
    assert reader.is_over
    assert reader.feed(b"anything") == []
    assert reader._message is None


def test_a_message_of_the_limit_is_taken() -> None:
    assert read(frame(BINARY, b"x" * 1_000, MASK), limit=1_000) == [b"x" * 1_000]


def test_wrong_text_is_noticed_before_the_frame_is_whole() -> None:
    wire = frame(TEXT, b"\xff" + b"a" * 1_000, MASK)
    (flaw,) = read(wire[:20])
    assert isinstance(flaw, Flaw)
    assert flaw.code is Code.NOT_UTF8


def test_a_goodbye_is_told_with_its_code_and_reason_and_nothing_behind_it_is_read() -> None:
    goodbye = frame(CLOSE, close_payload(4_242, "going — gone"), MASK)
    assert read(goodbye + frame(TEXT, b"behind", MASK)) == [Close(4_242, "going — gone")]
    assert read(frame(CLOSE, b"", MASK)) == [Close(Code.NO_STATUS, "")]
    assert close_payload(Code.NO_STATUS, "") == b""


def test_a_reason_that_is_too_long_is_cut_at_a_character() -> None:
    payload = close_payload(1_000, "€" * 100)
    assert len(payload) <= 125
    assert payload[2:].decode() == "€" * 41


def test_the_codes_a_peer_may_send_are_the_defined_ones_and_those_for_private_use() -> None:
    allowed = [code for code in range(6_000) if may_be_received(code)]
    assert allowed == [1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)]


def test_pongs_are_told_with_their_payload() -> None:
    assert read(frame(PONG, b"yes", MASK)) == [Pong(b"yes")]


@given(st.binary(max_size=200), st.integers(1, 7))
def test_no_bytes_make_the_reader_fail_and_cutting_them_changes_nothing(data: bytes, cut: int) -> None:
    assert read(data, limit=100) == read(data, limit=100, at_once=cut)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5), st.data())
def test_mutated_frames_are_judged_as_another_implementation_judges_them(
    payloads: list[bytes], data: st.DataObject
) -> None:
    wire = bytearray(b"".join(frame(BINARY, payload, MASK) for payload in payloads))
    for _ in range(data.draw(st.integers(0, 3))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    judge = Protocol(Side.SERVER, state=State.OPEN, max_size=LIMIT)
    judge.receive_data(bytes(wire))
    mine = read(bytes(wire))
    refused = [event for event in mine if isinstance(event, Flaw)]
    theirs = judge.close_sent.code if judge.parser_exc is not None and judge.close_sent is not None else None
    if theirs is not None:
        assert refused
    elif not judge.reader.buffer:  # it judges a frame when it is whole; and looks neither at lengths nor into texts
        assert not refused or "shortest" in refused[0].reason or refused[0].code is Code.NOT_UTF8
