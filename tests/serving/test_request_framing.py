"""Requests are cut at the same places however the network cuts them, and nothing is held that need not be."""

import pytest

from skygw.serving.chunked_body import ChunkedBody
from skygw.serving.field_lines import MalformedError
from skygw.serving.request_framing import RequestFraming
from tests.serving.hostile_http import TABLE, Hostile

HEAD_BYTES = 16 * 1024
TWO_REQUESTS = (
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n1;a=b\r\n!\r\n0\r\nX-Sum: 1\r\n\r\n"
    b"\r\nPUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
)


def read_all(pieces: list[bytes]) -> list[tuple[bytes, bytes]]:
    """The request lines and bodies found in what arrives piece by piece. Raises what the framing raises."""
    framing = RequestFraming(max_head_bytes=HEAD_BYTES)
    found: list[tuple[bytes, bytes]] = []
    in_body = False
    for piece in pieces:
        framing.feed(piece)
        while True:
            if not in_body:
                head = framing.take_head()
                if head is None:
                    break
                found.append((head.partition(b"\r\n")[0], b""))
            line, body = found[-1]
            found[-1] = (line, body + framing.take_body())
            in_body = not framing.body.is_complete
            if in_body:
                break
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, len(TWO_REQUESTS)])
def test_the_cuts_of_the_network_do_not_matter(size: int) -> None:
    pieces = [TWO_REQUESTS[at : at + size] for at in range(0, len(TWO_REQUESTS), size)]
    assert read_all(pieces) == [(b"POST / HTTP/1.1", b"hello!"), (b"PUT / HTTP/1.1", b"abc")]


@pytest.mark.parametrize("row", [row for row in TABLE if len(row.sent) < 2_000], ids=lambda row: row.name)
def test_what_is_refused_whole_is_refused_byte_by_byte(row: Hostile) -> None:
    def verdict(pieces: list[bytes]) -> object:
        try:
            return read_all(pieces)
        except MalformedError as error:
            return error.status

    sent = row.sent
    assert verdict([sent]) == verdict([sent[at : at + 1] for at in range(len(sent))])


def test_a_line_that_is_wrong_is_not_waited_for() -> None:
    framing = RequestFraming(max_head_bytes=HEAD_BYTES)
    framing.feed(b"GET / HTTP/1.1\r\nHost: a\r")
    assert framing.take_head() is None
    framing.feed(b"\nA: b\n")
    with pytest.raises(MalformedError, match="bare LF"):
        framing.take_head()


def test_a_body_of_tiny_chunks_is_one_run_of_payload() -> None:
    body = ChunkedBody(max_trailer_bytes=HEAD_BYTES)
    unread = bytearray(b"1\r\nx\r\n" * 10_000 + b"1")
    assert body.take(unread) == b"x" * 10_000
    assert unread == b"1"


def test_nothing_of_a_body_stays_behind() -> None:
    framing = RequestFraming(max_head_bytes=HEAD_BYTES)
    framing.feed(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab")
    assert framing.take_head()
    assert framing.take_body() == b"ab"
    assert not framing.has_unread
    framing.feed(b"cGET")
    assert framing.take_body() == b"c"
    assert framing.body.is_complete
    assert framing.has_unread
