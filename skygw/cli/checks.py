"""What `skygw doctor` can tell from this machine alone: directory, disk, ports, certificates."""

import errno
import os
import shutil
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509

from skygw.cli.process import file_limit
from skygw.settings import Listener, Settings, TlsFiles

GIB = 1024**3
LITTLE_DISK_BYTES = 1 * GIB
CERTIFICATE_WARNING = timedelta(days=14)


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"
    WRONG = "wrong"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do if it is not well."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""


def check_data_dir(path: Path) -> Check:
    """Whether the gateway can keep its files in `path`, and nobody else can change them there."""
    name = "data directory"
    if not path.exists():
        above = next(parent for parent in path.parents if parent.exists())
        if os.access(above, os.W_OK | os.X_OK):
            return Check(name, Verdict.OK, f"{path} does not exist yet and can be made")
        return Check(name, Verdict.WRONG, f"{path} cannot be made in {above}", "Set SKYGW_DATA_DIR or give the rights.")
    if not path.is_dir():
        return Check(name, Verdict.WRONG, f"{path} is not a directory", "Set SKYGW_DATA_DIR to a directory.")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        return Check(name, Verdict.WRONG, f"{path} cannot be written by this user", "Give this user the directory.")
    if path.stat().st_mode & 0o022:
        return Check(name, Verdict.WRONG, f"{path} can be changed by other users", f"Run: chmod go-w {path}")
    free = shutil.disk_usage(path).free
    if free < LITTLE_DISK_BYTES:
        return Check(name, Verdict.WARNING, f"{path} has {free / GIB:.1f} GiB left", "Make room before it is full.")
    return Check(name, Verdict.OK, f"{path}, {free / GIB:.0f} GiB free")


def check_files(max_connections: int) -> Check:
    """Whether as many connections can be held as the settings promise."""
    name = "open files"
    limit = file_limit(max_connections)
    found = f"{limit.allowed} are allowed, {limit.needed} are needed when both listeners are full"
    if limit.is_enough:
        return Check(name, Verdict.OK, found)
    return Check(name, Verdict.WARNING, found, "Raise the hard limit (LimitNOFILE), or lower SKYGW_MAX_CONNECTIONS.")


def check_port(listener: Listener, host: str, port: int) -> Check:
    """Whether the listener could bind now. Binds for an instant and accepts nobody."""
    name = f"{listener} port"
    setting = f"SKYGW_{listener.upper()}"
    if port == 0:
        return Check(name, Verdict.OK, f"a free port of {host} is picked at the start")
    try:
        with _bound(host, port):
            return Check(name, Verdict.OK, f"{host}:{port} is free")
    except socket.gaierror:
        return Check(
            name, Verdict.WRONG, f"{host} is not known here", f"Set {setting}_HOST to an address of this machine."
        )
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                advice = f"Stop what listens there (it may be a running gateway), or set {setting}_PORT."
                return Check(name, Verdict.WRONG, f"{host}:{port} is taken", advice)
            case errno.EACCES:
                return Check(name, Verdict.WRONG, f"{host}:{port} is for root only", f"Set {setting}_PORT above 1023.")
            case _:
                advice = f"Set {setting}_HOST to an address of this machine."
                return Check(name, Verdict.WRONG, f"{host}:{port} cannot be bound ({error.strerror})", advice)


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    made = socket.socket(family, kind, protocol)
    try:
        # As the gateway does it: connections that are still closing are no obstacle.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(1)
    except OSError:
        made.close()
        raise
    return made


def check_tls(listener: Listener, settings: Settings, *, now: datetime | None = None) -> Check:
    """Whether the certificate loads with its key and is valid for a while."""
    name = f"{listener} TLS"
    files = settings.tls(listener)
    if files is None:
        if not settings.allow_cleartext or settings.behind_tls_proxy:
            where = "a proxy in front ends TLS" if settings.behind_tls_proxy else "cleartext, on loopback only"
            return Check(name, Verdict.OK, where)
        return Check(name, Verdict.WARNING, "cleartext is allowed", "Set SKYGW_TLS_CERTIFICATE and SKYGW_TLS_KEY.")
    try:
        expires = _expiry(files)
    except (OSError, ValueError) as error:
        # An SSLError is an OSError without a strerror worth reading.
        said = str(error).strip() or type(error).__name__
        return Check(name, Verdict.WRONG, f"{files.certificate}: {said}", "Correct the files and their rights.")
    left = expires - (now or datetime.now(UTC))
    when = f"{files.certificate} expires {expires:%Y-%m-%d %H:%M} UTC"
    if left <= timedelta(0):
        return Check(name, Verdict.WRONG, when, "Renew the certificate: no node will believe it.")
    if left < CERTIFICATE_WARNING:
        return Check(name, Verdict.WARNING, when, "Renew the certificate soon.")
    return Check(name, Verdict.OK, when)


def _expiry(files: TlsFiles) -> datetime:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    if files.client_ca is not None:
        context.load_verify_locations(files.client_ca)
    chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
    return min(certificate.not_valid_after_utc for certificate in chain)
