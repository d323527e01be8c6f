"""Hostile and odd HTTP/1, each with the answer it must get and the rule that says so: read it as a table.

`TAKEN` is a request that looks wrong and is not: the app answers it. `CLOSED` is no answer at all. Every refusal ends
its connection.
"""

import struct
from dataclasses import dataclass
from enum import Enum

import trio

from tests.serving.served import Peer

TAKEN = 200
CLOSED = 0

KEY = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
UPGRADE = b"Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
FRAME = b"\x81\x85\x00\x00\x00\x00hello"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
CLIENT_HELLO = b"\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03" + bytes(range(0x80, 0x100)) + b"\x00\x02\x13\x01"


def get(target: bytes = b"/healthz", version: bytes = b"1.1") -> bytes:
    return b"GET " + target + b" HTTP/" + version + b"\r\nHost: a\r\n\r\n"


def method(name: bytes, target: bytes = b"/healthz") -> bytes:
    return name + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n"


def fields(*lines: bytes) -> bytes:
    return b"GET /healthz HTTP/1.1\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


def field(line: bytes) -> bytes:
    return fields(b"Host: a", line)


def post(*lines: bytes, body: bytes = b"") -> bytes:
    head = b"".join(line + b"\r\n" for line in (b"Host: a", *lines))
    return b"POST /healthz HTTP/1.1\r\n" + head + b"\r\n" + body


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked", body=body)


def socket(*lines: bytes, start: bytes = b"GET /healthz HTTP/1.1", behind: bytes = b"") -> bytes:
    return start + b"\r\n" + UPGRADE + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + behind


class Then(Enum):
    """What the peer does behind its last byte."""

    LISTEN = "listens"
    FIN = "closes its half"
    RST = "resets"


@dataclass(frozen=True)
class Hostile:
    name: str
    sent: bytes
    answer: int
    why: str
    then: Then = Then.LISTEN


TABLE = [
    # How long the body is.
    Hostile("two lengths that differ", post(b"Content-Length: 5", b"Content-Length: 6"), 400, "9112 §6.3"),
    Hostile("the same length twice", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400, "9112 §6.3"),
    Hostile("a list of lengths", post(b"Content-Length: 5, 5", body=b"hello"), 400, "9112 §6.3"),
    Hostile("a length with a sign", post(b"Content-Length: +5", body=b"hello"), 400, "9110 §8.6"),
    Hostile("a negative length", post(b"Content-Length: -5"), 400, "9110 §8.6"),
    Hostile("a hexadecimal length", post(b"Content-Length: 0x5", body=b"hello"), 400, "9110 §8.6"),
    Hostile("a length with a space in it", post(b"Content-Length: 1 0", body=b"hello"), 400, "9110 §8.6"),
    Hostile("an empty length", post(b"Content-Length:"), 400, "9110 §8.6"),
    Hostile("a length beyond every number", post(b"Content-Length: " + b"9" * 40), 400, "9110 §8.6"),
    Hostile("a length and chunks", post(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400, "9112 §6.3"),
    Hostile("chunks and a length", post(b"transfer-encoding: chunked", b"content-length: 5"), 400, "9112 §6.3"),
    Hostile("a body longer than its length", post(b"Content-Length: 2", body=b"hello"), TAKEN, "llo is a next request"),
    Hostile("a coding nobody knows", post(b"Transfer-Encoding: gzip, chunked"), 501, "9112 §6.1"),
    Hostile("a last coding that is not chunked", post(b"Transfer-Encoding: chunked, gzip"), 400, "9112 §6.3"),
    Hostile("identity", post(b"Transfer-Encoding: identity"), 400, "9112 §6.3"),
    Hostile("chunked twice in one line", post(b"Transfer-Encoding: chunked, chunked"), 400, "9112 §6.1"),
    Hostile(
        "chunked in two lines", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400, "9112 §6.1"
    ),
    Hostile(
        "chunked in two lines, one empty", post(b"Transfer-Encoding: chunked", b"Transfer-Encoding:"), 400, "9112 §6.3"
    ),
    Hostile("almost chunked", post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400, "9112 §6.3"),
    Hostile("quoted chunked", post(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 400, "9112 §6.3"),
    Hostile(
        "chunked behind a vertical tab", post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400, "9110 §5.5"
    ),
    Hostile("chunked in capitals", post(b"TRANSFER-ENCODING: CHUNKED", body=b"1\r\nx\r\n0\r\n\r\n"), TAKEN, "9112 §7"),
    Hostile(
        "chunks in HTTP/1.0",
        b"POST /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        "9112 §6.1",
    ),
    # Chunks.
    Hostile("a chunk size that is no number", chunked(b"zz\r\n"), 400, "9112 §7.1"),
    Hostile("a negative chunk size", chunked(b"-5\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk size with 0x", chunked(b"0x5\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("an empty chunk size", chunked(b"\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk size behind a space", chunked(b" 5\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk size before a space", chunked(b"5 \r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk size with an underscore", chunked(b"1_0\r\nhello"), 400, "9112 §7.1"),
    Hostile("a chunk size beyond every number", chunked(b"f" * 17 + b"\r\nhello"), 400, "9112 §7.1"),
    Hostile("a chunk size that never ends", chunked(b"0" * 100_000), 400, "9112 §7.1"),
    Hostile("a chunk size with leading zeros", chunked(b"0005\r\nhello\r\n000\r\n\r\n"), TAKEN, "9112 §7.1"),
    Hostile("a chunk size that ends in LF", chunked(b"5\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk size that ends in CR", chunked(b"5\rhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk longer than its size", chunked(b"2\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk that ends in LF", chunked(b"5\r\nhello\n0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile("a chunk without an end", chunked(b"5\r\nhello0\r\n\r\n"), 400, "9112 §7.1"),
    Hostile(
        "chunk extensions",
        chunked(b'5 ; a=b;c ;d="e\\"f;"\r\nhello\r\n0;x\r\n\r\n'),
        TAKEN,
        "9112 §7.1.1",
    ),
    Hostile("an extension that hides a line break", chunked(b"5;a\nb\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1.1"),
    Hostile("an extension without a name", chunked(b"5;\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1.1"),
    Hostile(
        "an extension of megabytes", chunked(b"5;a=" + b"b" * 2_000_000 + b"\r\nhello\r\n0\r\n\r\n"), 400, "9112 §7.1.1"
    ),
    Hostile("a flood of extensions", chunked((b"1;a=" + b"b" * 200 + b"\r\nx\r\n") * 100), 400, "9112 §7.1.1"),
    Hostile("a trailer", chunked(b"1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n"), TAKEN, "9110 §6.5.1: it is dropped"),
    Hostile("a trailer that frames", chunked(b"0\r\nContent-Length: 5\r\n\r\n"), TAKEN, "9110 §6.5.1: it is dropped"),
    Hostile("a trailer that is no field", chunked(b"0\r\nGET / HTTP/1.1\r\n\r\n"), 400, "9112 §7.1.2"),
    Hostile("a trailer with a bare LF", chunked(b"0\r\nA: b\nB: c\r\n\r\n"), 400, "9112 §2.2"),
    Hostile("a folded trailer", chunked(b"0\r\nA: b\r\n c\r\n\r\n"), 400, "9112 §5.2"),
    Hostile("a trailer of megabytes", chunked(b"0\r\nA: " + b"b" * 2_000_000 + b"\r\n\r\n"), 431, "6585 §5"),
    Hostile("a flood of trailers", chunked(b"0\r\n" + b"A: b\r\n" * 1_000 + b"\r\n"), 431, "6585 §5"),
    # Lines.
    Hostile("a request line that ends in LF", b"GET /healthz HTTP/1.1\nHost: a\r\n\r\n", 400, "9112 §2.2"),
    Hostile("a field that ends in LF", b"GET /healthz HTTP/1.1\r\nHost: a\nA: b\r\n\r\n", 400, "9112 §2.2"),
    Hostile("lines that all end in LF", b"GET /healthz HTTP/1.1\nHost: a\n\n", 400, "9112 §2.2"),
    Hostile("an empty line of LF", b"GET /healthz HTTP/1.1\r\nHost: a\r\n\n", 400, "9112 §2.2"),
    Hostile("a bare CR in a value", field(b"A: b\rContent-Length: 5"), 400, "9112 §2.2"),
    Hostile("a bare CR in the request line", get(b"/\r/"), 400, "9112 §2.2"),
    Hostile("a folded field", field(b"A: b\r\n Content-Length: 5"), 400, "9112 §5.2"),
    Hostile("a field folded by a tab", field(b"Transfer-Encoding:\r\n\tchunked"), 400, "9112 §5.2"),
    Hostile("a space before the first field", fields(b" Host: a"), 400, "9112 §2.2"),
    Hostile("one empty line before the request", b"\r\n" + get(), TAKEN, "9112 §2.2"),
    Hostile("two empty lines before the request", b"\r\n\r\n" + get(), 400, "9112 §2.2"),
    # Fields.
    Hostile("a space before the colon", field(b"Content-Length : 5"), 400, "9112 §5.1"),
    Hostile("a NUL in a value", field(b"A: b\x00c"), 400, "9110 §5.5"),
    Hostile("a NUL in a name", field(b"A\x00: b"), 400, "9110 §5.1"),
    Hostile("an escape in a value", field(b"A: \x1b[2J"), 400, "9110 §5.5"),
    Hostile("a DEL in a value", field(b"A: \x7f"), 400, "9110 §5.5"),
    Hostile("a name in no ASCII", field(b"\xc3\xa4: b"), 400, "9110 §5.1"),
    Hostile("a value in no ASCII", field(b"A: \xff\xfe"), TAKEN, "9110 §5.5: obs-text"),
    Hostile("a name with brackets", field(b"A[]: b"), 400, "9110 §5.1"),
    Hostile("a field without a colon", field(b"Authorization"), 400, "9112 §5"),
    Hostile("a field without a name", field(b": b"), 400, "9112 §5"),
    Hostile("an empty value", field(b"A:"), TAKEN, "9110 §5.5"),
    Hostile("100,000 fields", fields(b"Host: a", *[b"A: b"] * 100_000), 431, "6585 §5"),
    Hostile("more fields than one request needs", fields(b"Host: a", *[b"A: b"] * 200), 431, "6585 §5"),
    Hostile("a field of a megabyte", field(b"A: " + b"b" * 1_000_000), 431, "6585 §5"),
    Hostile("a name of a megabyte", field(b"A" * 1_000_000 + b": b"), 431, "6585 §5"),
    Hostile("a head just too large", field(b"A: " + b"b" * 16_384), 431, "6585 §5"),
    # Host.
    Hostile("no Host", fields(b"A: b"), 400, "9112 §3.2"),
    Hostile("two Hosts", fields(b"Host: a", b"Host: b"), 400, "9112 §3.2"),
    Hostile("a Host with a path", fields(b"Host: a/b"), 400, "9112 §3.2"),
    Hostile("a Host with a user", fields(b"Host: me@a"), 400, "9110 §4.2.4"),
    Hostile("a list of Hosts", fields(b"Host: a b"), 400, "9112 §3.2"),
    Hostile("a Host whose port is no number", fields(b"Host: a:b"), 400, "9112 §3.2"),
    Hostile("a Host with half a bracket", fields(b"Host: [::1"), 400, "9112 §3.2"),
    Hostile("no Host in HTTP/1.0", b"GET /healthz HTTP/1.0\r\n\r\n", TAKEN, "9112 §3.2"),
    # What is asked for.
    Hostile("a whole URL", get(b"http://other:5002/healthz"), TAKEN, "9112 §3.2.2"),
    Hostile("a whole URL with a user", get(b"http://me:secret@a/healthz"), 400, "9110 §4.2.4"),
    Hostile("a URL of another scheme", get(b"gopher://a/"), 400, "9112 §3.2.2"),
    Hostile("a URL without a host", get(b"http:///healthz"), 400, "9110 §4.2.1"),
    Hostile("a host and port alone", get(b"a:80"), 400, "9112 §3.2.3"),
    Hostile("CONNECT", method(b"CONNECT", b"a:80"), 501, "9110 §9.3.6"),
    Hostile("TRACE", method(b"TRACE"), 501, "9110 §9.3.8"),
    Hostile("a star for GET", get(b"*"), 400, "9112 §3.2.4"),
    Hostile("a star for OPTIONS", method(b"OPTIONS", b"*"), TAKEN, "9112 §3.2.4"),
    Hostile("a path that is none", get(b"healthz"), 400, "9112 §3.2.1"),
    Hostile("a fragment", get(b"/healthz#top"), 400, "9112 §3.2.1"),
    Hostile("a backslash", get(b"/healthz\\..\\metrics"), 400, "3986 §3.3"),
    Hostile("a percent sign alone", get(b"/healthz%"), 400, "3986 §2.1"),
    Hostile("half a percent code", get(b"/healthz%4"), 400, "3986 §2.1"),
    Hostile("a percent code that is none", get(b"/healthz%zz"), 400, "3986 §2.1"),
    Hostile("a coded NUL", get(b"/healthz%00"), TAKEN, "3986 §2.1: nothing is at that path"),
    Hostile("a coded line break", get(b"/healthz%0d%0aA:%20b"), TAKEN, "3986 §2.1: nothing is at that path"),
    Hostile("coded bytes that are no UTF-8", get(b"/%c0%ae%c0%ae/%ff"), TAKEN, "3986 §2.1: nothing is at that path"),
    Hostile("a path with dots", get(b"/../../healthz"), TAKEN, "9110 §4.2.3: nothing is at that path"),
    Hostile("a target with a NUL", get(b"/\x00"), 400, "9112 §3.2"),
    Hostile("a target with a tab", get(b"/\t"), 400, "9112 §3"),
    Hostile("a target with a space", get(b"/a b"), 400, "9112 §3.2"),
    Hostile("a target in no ASCII", get(b"/\xc3\xa4"), 400, "3986 §2"),
    Hostile("no target", b"GET  HTTP/1.1\r\nHost: a\r\n\r\n", 400, "9112 §3"),
    Hostile("a target of 10,000 bytes", get(b"/" + b"a" * 10_000), 414, "9112 §3"),
    Hostile("a target of a megabyte", get(b"/" + b"a" * 1_000_000), 414, "9112 §3"),
    Hostile("a target without end", b"GET /" + b"a" * 100_000, 414, "9112 §3"),
    Hostile("a method in small letters", method(b"get"), 501, "9110 §9.1"),
    Hostile("a method nobody knows", method(b"BREW"), 501, "9110 §9.1"),
    Hostile("a method that is no word", method(b"G(T"), 400, "9112 §3"),
    Hostile("a method without end", b"G" * 100_000, 414, "9112 §3"),
    # Versions and other protocols.
    Hostile("HTTP/0.9", b"GET /healthz\r\n", 400, "9112 §3"),
    Hostile("HTTP/0.9 by name", get(version=b"0.9"), 505, "9110 §15.6.6"),
    Hostile("HTTP/1.2", get(version=b"1.2"), TAKEN, "9110 §2.5"),
    Hostile("HTTP/2.0", get(version=b"2.0"), 505, "9110 §15.6.6"),
    Hostile("HTTP/1.10", get(version=b"1.10"), 400, "9112 §2.3"),
    Hostile("http in small letters", b"GET /healthz http/1.1\r\nHost: a\r\n\r\n", 400, "9112 §2.3"),
    Hostile("HTTP/2 by prior knowledge", PREFACE, 505, "9113 §3.3"),
    Hostile(
        "an offer of h2c",
        fields(b"Host: a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAAA"),
        TAKEN,
        "9110 §7.8: it is ignored",
    ),
    Hostile("TLS", CLIENT_HELLO, 400, "9112 §3"),
    Hostile("SSH", b"SSH-2.0-OpenSSH_9.7\r\n", 400, "9112 §3"),
    Hostile("zeros", b"\x00" * 5_000, 400, "9112 §3"),
    # Expectations.
    Hostile("an expectation nobody knows", post(b"Expect: a-pony", b"Content-Length: 1"), 417, "9110 §10.1.1"),
    Hostile("two expectations", post(b"Expect: 100-continue, a-pony", b"Content-Length: 1"), 417, "9110 §10.1.1"),
    Hostile("an expectation without a body", field(b"Expect: 100-continue"), TAKEN, "9110 §10.1.1"),
    Hostile(
        "an expectation and its body at once",
        post(b"Expect: 100-continue", b"Content-Length: 1", body=b"x"),
        TAKEN,
        "9110 §10.1.1",
    ),
    Hostile(
        "an expectation in HTTP/1.0",
        b"POST /healthz HTTP/1.0\r\nExpect: a-pony\r\nContent-Length: 1\r\n\r\nx",
        TAKEN,
        "9110 §10.1.1: it is ignored",
    ),
    # Upgrades.
    Hostile("an upgrade without a key", socket(), 400, "6455 §4.2.1"),
    Hostile("an upgrade with two keys", socket(KEY[:-2], KEY[:-2]), 400, "6455 §4.2.1"),
    Hostile("a key that is no base64", socket(b"Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400, "6455 §4.2.1"),
    Hostile("a key of 15 bytes", socket(b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"), 400, "6455 §4.2.1"),
    Hostile("an upgrade to version 8", socket(KEY[:-2]).replace(b"13", b"8"), 426, "6455 §4.4"),
    Hostile("an upgrade of two minds", socket(KEY[:-2], b"Sec-WebSocket-Version: 8"), 400, "6455 §4.2.1"),
    Hostile("an upgrade by POST", socket(KEY[:-2], start=b"POST /healthz HTTP/1.1"), 400, "6455 §4.1"),
    Hostile(
        "an upgrade in HTTP/1.0", socket(KEY[:-2], start=b"GET /healthz HTTP/1.0"), TAKEN, "9110 §7.8: it is ignored"
    ),
    Hostile("an upgrade nobody connects", socket(KEY[:-2]).replace(b"n: Upgrade", b"n: close"), TAKEN, "9110 §7.8"),
    Hostile("an upgrade with a body", socket(KEY[:-2], b"Content-Length: 5", behind=b"hello"), 400, "6455 §4.1"),
    Hostile(
        "an upgrade with chunks", socket(KEY[:-2], b"Transfer-Encoding: chunked", behind=b"0\r\n\r\n"), 400, "6455 §4.1"
    ),
    Hostile("a frame behind an upgrade", socket(KEY[:-2], behind=FRAME), 400, "6455 §4.1"),
    Hostile("a request behind an upgrade", socket(KEY[:-2], behind=get()), 400, "6455 §4.1"),
    # Leaving.
    Hostile("half a head, then FIN", b"GET /healthz HTTP/1.1\r\nHost:", CLOSED, "9112 §8", Then.FIN),
    Hostile("half a body, then FIN", post(b"Content-Length: 9", body=b"half"), CLOSED, "9112 §8", Then.FIN),
    Hostile("half a chunk, then FIN", chunked(b"9\r\nhalf"), CLOSED, "9112 §8", Then.FIN),
    Hostile("half a head, then RST", b"GET /healthz HTTP/1.1\r\nHost:", CLOSED, "9112 §9.5", Then.RST),
    Hostile("a request, then RST", get(), CLOSED, "9112 §9.5", Then.RST),
    Hostile("half a body, then RST", post(b"Content-Length: 9", body=b"half"), CLOSED, "9112 §9.5", Then.RST),
    Hostile("1,000 requests, then RST", get() * 1_000, CLOSED, "9112 §9.5", Then.RST),
]


async def answer_to(address: tuple[str, int], row: Hostile) -> tuple[int, bytes, bool]:
    """Say it; the status that came (0 for none), the body, and whether the other side has closed behind it."""
    stream = await trio.open_tcp_stream(*address)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_say, stream, row)
            if row.then is Then.RST:
                return CLOSED, b"", True
            peer = Peer(stream, stream)
            status, body = await peer.response()
            is_closed = row.answer != TAKEN and await peer.read_to_end() == b""
            nursery.cancel_scope.cancel()
        return status, body, is_closed
    finally:
        stream.socket.close()


async def _say(stream: trio.SocketStream, row: Hostile) -> None:
    try:
        await stream.send_all(row.sent)
        if row.then is Then.FIN:
            await stream.send_eof()
        elif row.then is Then.RST:
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, struct.pack("ii", 1, 0))
            stream.socket.close()
    except trio.BrokenResourceError:
        pass  # refused before all of it was said
