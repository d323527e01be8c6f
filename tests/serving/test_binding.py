"""What can be wrong before the first connection: each is one sentence."""

import errno
import logging
import socket
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from skygw.errors import StartupError
from skygw.serving import (
    Listener,
    ListenerConfig,
    NoMetrics,
    TlsFiles,
)
from skygw.serving.binding import listening_socket
from tests.serving.apps import greets


def config(**settings: object) -> ListenerConfig:
    return ListenerConfig(**{"name": "node", "host": "127.0.0.1", "port": 0, **settings})  # type: ignore[arg-type]


def bind(**settings: object) -> Listener:
    return Listener.bind(config(**settings), metrics=NoMetrics())


def test_port_0_picks_one() -> None:
    listener = bind()
    assert listener.address[1] > 0
    listener.stop_accepting()


def test_a_taken_port_is_one_sentence() -> None:
    first = bind()
    port = first.address[1]
    with pytest.raises(StartupError, match=rf"^port {port} on 127\.0\.0\.1 is taken: another program listens there"):
        bind(port=port)
    first.stop_accepting()


@pytest.mark.parametrize(
    ("host", "sentence"),
    [
        ("192.0.2.1", "this machine does not have that address"),
        ("no-such-host.invalid", "the node listener's address no-such-host.invalid cannot be resolved"),
    ],
)
def test_an_address_that_is_not_ours_is_one_sentence(host: str, sentence: str) -> None:
    with pytest.raises(StartupError, match=sentence):
        bind(host=host, allow_cleartext=True)


def test_cleartext_beyond_loopback_must_be_asked_for() -> None:
    with pytest.raises(StartupError, match="SKYGW_ALLOW_CLEARTEXT") as refusal:
        bind(host="0.0.0.0")
    assert "SKYGW_BEHIND_TLS_PROXY" in str(refusal.value)


@pytest.mark.parametrize("asked", ["allow_cleartext", "behind_tls_proxy"])
def test_cleartext_beyond_loopback_is_served_when_asked_for(asked: str) -> None:
    listener = bind(host="0.0.0.0", **{asked: True})
    assert listener.address[0] == "0.0.0.0"
    listener.stop_accepting()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_needs_no_permission(host: str) -> None:
    bind(host=host).stop_accepting()


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the platform has no TCP_USER_TIMEOUT")
async def test_accepted_sockets_inherit_the_user_timeout() -> None:
    listening = listening_socket(config())
    accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listening))
    async with (
        await trio.open_tcp_stream(*listening.getsockname()),
        accepting,
        await accepting.accept() as accepted,
    ):
        assert accepted.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 25_000


@pytest.mark.usefixtures("expects_errors")
async def test_a_process_out_of_files_says_so_and_goes_on_accepting(caplog: pytest.LogCaptureFixture) -> None:
    class OutOfFilesOnce(socket.socket):
        failed = False

        def accept(self) -> tuple[socket.socket, Any]:
            if not self.failed:
                self.failed = True
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    bound = listening_socket(config())
    listener = Listener(config(), OutOfFilesOnce(fileno=bound.detach()), tls=None, metrics=NoMetrics())
    async with trio.open_nursery() as nursery:
        await nursery.start(listener.run, greets)
        async with await trio.open_tcp_stream(*listener.address) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            with trio.fail_after(10):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        nursery.cancel_scope.cancel()
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert said == ["node: cannot accept: Too many open files"]


def test_a_missing_tls_file_is_one_sentence() -> None:
    missing = TlsFiles(certificate=Path("/nowhere/cert.pem"), key=Path("/nowhere/key.pem"))
    with pytest.raises(StartupError, match=r"^the TLS file /nowhere/cert\.pem cannot be read: No such file"):
        bind(tls=missing)
