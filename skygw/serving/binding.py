"""Sockets and certificates at start-up: each thing that can be wrong becomes one sentence."""

import errno
import socket
import ssl

from skygw.errors import StartupError
from skygw.serving.config import ListenerConfig, TlsFiles

BACKLOG = 4096  # a fleet that comes back at once waits here; the kernel caps it at net.core.somaxconn
TCP_USER_TIMEOUT_MS = 25_000  # the time after which a node is called dead


def listening_socket(config: ListenerConfig) -> socket.socket:
    """Bind and listen now.

    Linux hands `TCP_USER_TIMEOUT` on to accepted sockets: a peer that acknowledges nothing (unplugged, or
    its window shut) is given up by the kernel, also when nobody here is writing.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError):
        raise StartupError(f"the {config.name} listener's address {config.host} cannot be resolved") from None
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS)
        listening.bind(address)
        listening.listen(BACKLOG)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise StartupError(_why_not_bound(config, error)) from error
    return listening


def _why_not_bound(config: ListenerConfig, error: OSError) -> str:
    where = f"port {config.port} on {config.host}"
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where} is taken: another program listens there (the {config.name} listener wants it)"
        case errno.EACCES:
            return f"{where} needs rights this user does not have (the {config.name} listener wants it)"
        case errno.EADDRNOTAVAIL:
            return f"{where} cannot be used: this machine does not have that address"
        case _:
            return f"{where} cannot be opened for the {config.name} listener: {error.strerror}"


def tls_context(files: TlsFiles) -> ssl.SSLContext:
    """TLS 1.2 and newer, HTTP/1.1 only. Raise `StartupError` naming the file that does not hold."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for path in (files.certificate, files.key, files.client_ca):
        if path is None:
            continue
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise StartupError(f"the TLS file {path} cannot be read: {error.strerror}") from error
    try:
        # An encrypted key would make OpenSSL ask on the terminal; an empty passphrase makes it fail instead.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise StartupError(
            f"the TLS certificate {files.certificate} with the key {files.key} cannot be used: "
            "each must be PEM, the key without passphrase, and they must belong together"
        ) from error
    if files.client_ca is not None:
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError as error:
            raise StartupError(f"the client CA file {files.client_ca} holds no PEM certificate") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
