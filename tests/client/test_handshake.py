"""An upgrade as the client sees it: what is asked, and what is made of every answer, without a connection."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.client.handshake import (
    ACCEPT_SUFFIX,
    MAX_BODY_BYTES,
    MAX_HEAD_BYTES,
    BadAnswer,
    Handshake,
    Refused,
    Upgraded,
)

A_TOKEN = "secret"


def a_handshake(token: str = A_TOKEN) -> Handshake:
    return Handshake(host="hub.example:5002", target="/v1/ws/node?x=1", token=token, subprotocol="skynet.node.v1")


def header(request: bytes, name: bytes) -> list[bytes]:
    lines = [line.partition(b": ") for line in request.split(b"\r\n")[1:]]
    return [value for found, _, value in lines if found.lower() == name]


def accept(request: bytes) -> bytes:
    (key,) = header(request, b"sec-websocket-key")
    return base64.b64encode(hashlib.sha1(key + ACCEPT_SUFFIX, usedforsecurity=False).digest())


def answer(handshake: Handshake, **changes: bytes) -> bytes:
    """A good 101, with headers replaced, or taken out by an empty value."""
    headers = {
        b"upgrade": b"websocket",
        b"connection": b"keep-alive, Upgrade",
        b"sec-websocket-accept": accept(handshake.request),
        b"sec-websocket-protocol": b"skynet.node.v1",
    }
    headers |= {name.replace("_", "-").encode(): value for name, value in changes.items()}
    lines = b"".join(b"%s: %s\r\n" % item for item in headers.items() if item[1])
    return b"HTTP/1.1 101 Switching Protocols\r\n" + lines + b"\r\n"


def refusal(status: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, lines, len(body), body)


def test_the_request_says_what_it_wants_and_offers_no_extension() -> None:
    request = a_handshake().request

    assert request.startswith(b"GET /v1/ws/node?x=1 HTTP/1.1\r\n")
    assert header(request, b"host") == [b"hub.example:5002"]
    assert header(request, b"authorization") == [b"Bearer secret"]
    assert header(request, b"sec-websocket-version") == [b"13"]
    assert header(request, b"sec-websocket-protocol") == [b"skynet.node.v1"]
    assert header(request, b"sec-websocket-extensions") == []
    assert len(base64.b64decode(header(request, b"sec-websocket-key")[0])) == 16


def test_no_two_requests_have_the_same_key() -> None:
    assert header(a_handshake().request, b"sec-websocket-key") != header(a_handshake().request, b"sec-websocket-key")


@pytest.mark.parametrize("token", ["a\r\nX: y", "ünicode"])
def test_a_token_that_no_request_can_carry_is_not_shown(token: str) -> None:
    with pytest.raises(BadAnswer) as caught:
        a_handshake(token)

    assert token[:2] not in str(caught.value)


@given(st.integers(1, 400))
def test_a_good_answer_is_understood_however_it_is_cut_and_what_follows_is_kept(cut: int) -> None:
    handshake = a_handshake()
    data = answer(handshake) + b"\x81\x02hi"
    found, fed = None, 0
    while found is None:
        found = handshake.feed(data[fed : fed + cut])
        fed += cut

    assert isinstance(found, Upgraded)
    assert found.unread + data[fed:] == b"\x81\x02hi"


def test_hints_before_the_answer_are_passed_over() -> None:
    handshake = a_handshake()
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3

    assert handshake.feed(hints) is None
    assert handshake.feed(answer(handshake)) == Upgraded(b"")


@pytest.mark.parametrize(
    "changes",
    [
        {"upgrade": b"h2c"},
        {"upgrade": b""},
        {"connection": b"close"},
        {"connection": b""},
        {"sec_websocket_accept": b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="},
        {"sec_websocket_accept": b""},
        {"sec_websocket_extensions": b"permessage-deflate"},
        {"sec_websocket_protocol": b"skynet.node.v2"},
        {"sec_websocket_protocol": b""},
    ],
    ids=str,
)
def test_an_answer_that_agrees_to_something_else_is_not_taken(changes: dict[str, bytes]) -> None:
    handshake = a_handshake()

    with pytest.raises(BadAnswer):
        handshake.feed(answer(handshake, **changes))


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 1),
        b"HTTP/1.1 101\r\nContent-Length: x\r\n\r\n",
        b"",
    ],
    ids=["no HTTP", "an endless head", "nonsense", "nothing"],
)
def test_what_is_no_answer_is_named(data: bytes) -> None:
    handshake = a_handshake()

    with pytest.raises(BadAnswer) as caught:
        _ = [handshake.feed(piece) for piece in (data, b"")]

    assert len(str(caught.value)) < 500


def test_a_refusal_has_its_status_and_its_own_sentence() -> None:
    body = b'{"detail": "The token has expired.\\u001b[2J", "code": "unauthenticated"}'

    assert a_handshake().feed(refusal(b"401 Unauthorized", body=body)) == Refused(401, "The token has expired.[2J", 0.0)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": 7}', b"[" * 5_000, b'{"detail": "\xff"}'])
def test_a_refusal_without_a_sentence_has_none(body: bytes) -> None:
    assert a_handshake().feed(refusal(b"502 Bad Gateway", body=body)) == Refused(502, "", 0.0)


def test_of_a_refusal_that_never_ends_no_more_is_read_than_a_sentence_needs() -> None:
    handshake = a_handshake()
    handshake.feed(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\nRetry-After: 5\r\n\r\n")
    fed = 0
    while (found := handshake.feed(b"400\r\n" + b"x" * 1024 + b"\r\n")) is None:
        fed += 1024

    assert fed <= MAX_BODY_BYTES
    assert found == Refused(503, "", 5.0)


def test_a_refusal_that_is_cut_off_has_its_status_all_the_same() -> None:
    handshake = a_handshake()
    handshake.feed(b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\nRetry-After: 5\r\n\r\n{")

    assert handshake.feed(b"") == Refused(503, "", 5.0)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([b"Retry-After: 0"], 0.0),
        ([b"Retry-After: 120"], 120.0),
        ([b"Retry-After: 99999999999999999999"], 900.0),
        ([b"Retry-After: -5"], 0.0),
        ([b"Retry-After: 1.5"], 0.0),
        ([b"Retry-After: soon"], 0.0),
        ([], 0.0),
        ([b"Date: Sun, 22 Nov 1998 03:00:00 GMT", b"Retry-After: Sun, 22 Nov 1998 03:01:30 GMT"], 90.0),
        ([b"Date: Sun, 22 Nov 1998 03:00:00 GMT", b"Retry-After: Sun, 22 Nov 1998 02:00:00 GMT"], 0.0),
        ([b"Date: Sun, 22 Nov 1998 03:00:00 GMT", b"Retry-After: Sun, 22 Nov 2099 03:00:00 GMT"], 900.0),
        ([b"Retry-After: Sun, 22 Nov 2099 03:00:00 GMT"], 0.0),
        ([b"Date: yesterday", b"Retry-After: Sun, 22 Nov 2099 03:00:00 GMT"], 0.0),
        ([b"Date: Sun, 22 Nov 1998 03:00:00 GMT", b"Retry-After: \xff\xfe"], 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date_by_the_clock_that_wrote_it(headers: list[bytes], seconds: float) -> None:
    assert a_handshake().feed(refusal(b"503 Busy", *headers)) == Refused(503, "", seconds)
