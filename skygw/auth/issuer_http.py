"""Talks to the token issuer over HTTP and believes little: https, one deadline, bounded bytes, no detours."""

import ssl

import httpx
import trio

from skygw.errors import RoutingUnavailable, StartupError
from skygw.loopback_hosts import is_loopback

RETRY_AFTER_S = 5.0
"""What a caller is told to wait when the issuer could not be asked."""
REACHABLE_FOR_S = 10.0
"""For how long the last attempt answers the question whether the issuer can be reached."""


class IssuerUnavailable(RoutingUnavailable):
    """The issuer cannot be asked now, so a token can be neither taken nor refused. A 503 at the doors."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after_s=RETRY_AFTER_S)


def issuer_address(url: str, *, what: str) -> httpx.URL:
    """The address of an issuer's endpoint. Raises `StartupError` unless it is https, or http on loopback.

    `what` names the endpoint in the message. Credentials in the address are refused: addresses are logged.
    """
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        raise StartupError(f"The address of {what} is not a URL.") from None
    if address.userinfo:
        raise StartupError(f"The address of {what} must not hold a user name or password.")
    if not address.host or not (address.scheme == "https" or (address.scheme == "http" and is_loopback(address.host))):
        raise StartupError(f"The address of {what} must be https, or http on this machine: {address}.")
    return address


def open_issuer_client(*, ca_file: str | None = None) -> httpx.AsyncClient:
    """The HTTP client the key set and introspection share; the caller closes it (`async with`).

    Proxies named by the environment are not used: tokens and keys take no detour nobody configured.
    `ca_file` is a PEM bundle to trust instead of the well-known authorities; raises `StartupError` if it is none.
    """
    authorities: ssl.SSLContext | bool = True
    if ca_file:
        try:
            authorities = ssl.create_default_context(cafile=ca_file)
        except ssl.SSLError:
            raise StartupError(f"SKYGW_ISSUER_CA: {ca_file} is not a PEM bundle of certificates.") from None
        except OSError as error:
            raise StartupError(f"SKYGW_ISSUER_CA: {ca_file} cannot be read: {error.strerror}.") from None
    return httpx.AsyncClient(follow_redirects=False, trust_env=False, verify=authorities)


async def ask_issuer(client: httpx.AsyncClient, request: httpx.Request, *, max_bytes: int, timeout_s: float) -> bytes:
    """The body of a 200 answer. Anything else, later or larger raises `IssuerUnavailable`.

    Cancelling closes the connection. Nothing of the request or the answer is in the message.
    """
    host = request.url.host
    request.extensions["timeout"] = httpx.Timeout(timeout_s).as_dict()
    try:
        with trio.fail_after(timeout_s):
            response = await client.send(request, stream=True)
            try:
                return await _bounded_body(response, host=host, max_bytes=max_bytes)
            finally:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                    await response.aclose()
    except trio.TooSlowError:
        raise IssuerUnavailable(f"The token issuer at {host} did not answer within {timeout_s:g} s.") from None
    except httpx.HTTPError as error:
        kind = type(error).__name__
        raise IssuerUnavailable(f"The token issuer at {host} cannot be reached ({kind}).") from None


async def _bounded_body(response: httpx.Response, *, host: str, max_bytes: int) -> bytes:
    if response.status_code != httpx.codes.OK:
        raise IssuerUnavailable(f"The token issuer at {host} answered {response.status_code}.")
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        # Asked for plain bytes; a compressed answer could unpack to any size.
        raise IssuerUnavailable(f"The token issuer at {host} sent a compressed answer.")
    body = bytearray()
    with trio.CancelScope() as reading:
        async for chunk in response.aiter_raw():
            if len(body) + len(chunk) > max_bytes:
                # Leaving the loop would strand httpx's nested generators; being cancelled unwinds them all.
                reading.cancel()
            else:
                body += chunk
    if reading.cancel_called:
        raise IssuerUnavailable(f"The token issuer at {host} sent more than {max_bytes} bytes.")
    return bytes(body)
