"""TLS on a listener: who gets in, and which file is named when one does not hold."""

import ssl
from pathlib import Path

import pytest
import trio
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from skygw.errors import StartupError
from skygw.serving import End, TlsFiles
from skygw.serving.binding import tls_context
from tests.serving.apps import EchoApp
from tests.serving.served import PATIENCE_S, serving


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> TlsFiles:
    return issue(authority, tmp_path)


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def issue(authority: trustme.CA, folder: Path) -> TlsFiles:
    leaf = authority.issue_cert("localhost")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    key.write_bytes(leaf.private_key_pem.bytes())
    return TlsFiles(certificate=certificate, key=key)


async def test_a_client_that_trusts_the_authority_is_served(files: TlsFiles, client: ssl.SSLContext) -> None:
    app = EchoApp()
    async with serving(app, tls=files) as served, served.peer(tls=client) as peer:
        assert await peer.ask(method="POST", body=b"x" * 200_000) == (200, b"x" * 200_000)
        assert app.scopes[0]["scheme"] == "https"


async def test_http_2_is_not_negotiated(files: TlsFiles, client: ssl.SSLContext) -> None:
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with serving(EchoApp(), tls=files) as served, served.peer(tls=client) as peer:
        assert await peer.ask() == (200, b"hello")
        assert isinstance(peer.stream, trio.SSLStream)
        assert peer.stream.selected_alpn_protocol() == "http/1.1"


def test_nothing_below_tls_1_2_is_spoken(files: TlsFiles) -> None:
    assert tls_context(files).minimum_version is ssl.TLSVersion.TLSv1_2


async def test_cleartext_on_a_tls_listener_ends_alone(files: TlsFiles, client: ssl.SSLContext) -> None:
    async with serving(EchoApp(), tls=files) as served, served.peer(tls=client) as bystander:
        assert await bystander.ask() == (200, b"hello")
        async with served.peer() as plain:
            await plain.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await plain.read_to_end()
        await served.metrics.until_closed(End.TLS)
        assert await bystander.ask() == (200, b"hello")


async def test_a_handshake_that_never_comes_is_given_up(files: TlsFiles) -> None:
    async with serving(EchoApp(), tls=files, tls_handshake_timeout_s=0.2) as served, served.peer() as mute:
        await served.metrics.until_closed(End.TLS)
        assert await mute.read_to_end() == b""


async def test_a_peer_in_its_handshake_does_not_hold_up_the_drain(files: TlsFiles) -> None:
    async with serving(EchoApp(), tls=files) as served, served.peer():
        with trio.fail_after(PATIENCE_S):
            while not served.listener.connection_count:
                await trio.lowlevel.checkpoint()
            await served.listener.end_connections(within_s=PATIENCE_S)
        assert served.metrics.closed_by == {End.DRAINED: 1}


async def test_with_a_client_authority_a_certificate_is_asked_for(
    authority: trustme.CA, files: TlsFiles, client: ssl.SSLContext, tmp_path: Path
) -> None:
    trusted = tmp_path / "ca.pem"
    trusted.write_bytes(authority.cert_pem.bytes())
    mutual = TlsFiles(certificate=files.certificate, key=files.key, client_ca=trusted)
    known = ssl.create_default_context()
    authority.configure_trust(known)
    authority.issue_cert("node@example.org").configure_cert(known)
    async with serving(EchoApp(), tls=mutual) as served:
        async with served.peer(tls=known) as peer:
            assert await peer.ask() == (200, b"hello")
        async with served.peer(tls=client) as stranger:
            assert isinstance(stranger.stream, trio.SSLStream)
            await stranger.stream.do_handshake()  # in TLS 1.3 the client is done before the server has decided
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(PATIENCE_S):
                await stranger.stream.receive_some(1)
        await served.metrics.until_closed(End.TLS)


def test_a_file_that_is_no_certificate_is_one_sentence(files: TlsFiles) -> None:
    files.certificate.write_text("no certificate")
    with pytest.raises(StartupError, match=r"^the TLS certificate .*cert\.pem with the key .*key\.pem cannot be used"):
        tls_context(files)


def test_a_key_with_a_passphrase_is_one_sentence_and_no_prompt(files: TlsFiles) -> None:
    key = load_pem_private_key(files.key.read_bytes(), password=None)
    files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")))
    with pytest.raises(StartupError, match="the key without passphrase"):
        tls_context(files)


def test_a_key_of_another_certificate_is_one_sentence(authority: trustme.CA, files: TlsFiles, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(StartupError, match="they must belong together"):
        tls_context(TlsFiles(certificate=files.certificate, key=issue(authority, other).key))


def test_a_client_authority_without_certificate_is_one_sentence(files: TlsFiles, tmp_path: Path) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    with pytest.raises(StartupError, match=r"ca\.pem holds no PEM certificate"):
        tls_context(TlsFiles(certificate=files.certificate, key=files.key, client_ca=empty))
