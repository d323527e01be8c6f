"""The internal API as a hub service uses it, without I/O: paths, bodies, and what makes an answer whole (contract §6).

Shared by the Trio caller and the blocking one.
"""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx

from skygw.client.problems import rebuilt
from skygw.errors import BadResponse, GatewayError, Hop, LinkLost, Outcome
from skygw.ids import LeaseId, LeaseUid
from skygw.protocol.gateway_frames import OnExpiry

NodeKey = UUID | int | str
"""An installation by uid or by integer key."""

Record = dict[str, Any]
"""A record as the gateway serves it, camelCase; its OpenAPI document says what is in it."""

TIMEOUTS = httpx.Timeout(connect=10.0, read=30.0, write=30.0, pool=10.0)
HEADERS = {"accept-encoding": "identity"}
"""Bytes are counted and digested as they come: nobody on the way may compress them."""

SLACK_S = 10.0
"""How much longer than the gateway's own time for a request its answer is waited for."""

_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to make."""

    method: str
    path: str
    body: Record | None = None
    params: dict[str, str | int] | None = None
    headers: dict[str, str] | None = None
    read_timeout_s: float | None = None

    def arguments(self) -> dict[str, Any]:
        """For httpx's `build_request`."""
        found: dict[str, Any] = {"method": self.method, "url": self.path}
        if self.body is not None:
            found["json"] = self.body
        if self.params:
            found["params"] = self.params
        if self.headers:
            found["headers"] = self.headers
        if self.read_timeout_s is not None:
            found["timeout"] = httpx.Timeout(
                connect=TIMEOUTS.connect, read=self.read_timeout_s, write=TIMEOUTS.write, pool=TIMEOUTS.pool
            )
        return found


def given(**values: Any) -> Record:
    """The members that were given; the gateway refuses keys it does not know, and `null` is not nothing."""
    return {key: value for key, value in values.items() if value is not None}


def direct_call(
    node: NodeKey,
    operation: str,
    params: Record,
    *,
    timeout_s: float,
    connect_wait_s: float | None = None,
    offset: int | None = None,
    length: int | None = None,
    if_digest: str | None = None,
    request_id: str | None = None,
    actor: Record | None = None,
) -> Call:
    """`timeout_s` is for everything, the wait for an absent node included."""
    body = given(
        operation=operation,
        params=params,
        timeoutS=timeout_s,
        connectWaitS=connect_wait_s,
        offset=offset,
        length=length,
        ifDigest=if_digest,
        requestId=request_id or str(uuid4()),
        actor=actor,
    )
    return Call("POST", f"/internal/nodes/{_part(node)}/direct", body, read_timeout_s=timeout_s + SLACK_S)


def node_call(node: NodeKey) -> Call:
    return Call("GET", f"/internal/nodes/{_part(node)}")


def nodes_call(page: int, size: int) -> Call:
    return Call("GET", "/internal/nodes", params={"page": page, "size": size})


def call_outcome_call(request_id: str) -> Call:
    return Call("GET", f"/internal/calls/{_part(request_id)}")


def lease_call(
    lease_uid: LeaseUid,
    *,
    telescope_uid: UUID | None,
    device_uid: UUID | None,
    duration_s: float,
    on_expiry: OnExpiry | None = None,
    deadman_s: float | None = None,
    actor: Record | None = None,
) -> Call:
    """The secret is the caller's own: the same request again finds the same lease."""
    body = given(
        leaseUid=str(lease_uid),
        telescopeUid=None if telescope_uid is None else str(telescope_uid),
        deviceUid=None if device_uid is None else str(device_uid),
        durationS=duration_s,
        onExpiry=None if on_expiry is None else on_expiry.value,
        deadmanS=deadman_s,
        actor=actor,
    )
    return Call("POST", "/internal/leases", body)


def renew_lease_call(lease_id: LeaseId, lease_uid: LeaseUid, *, actor: Record | None) -> Call:
    return Call("POST", f"/internal/leases/{lease_id}/renew", given(leaseUid=str(lease_uid), actor=actor))


def release_lease_call(lease_id: LeaseId, lease_uid: LeaseUid, *, actor: Record | None) -> Call:
    return Call("POST", f"/internal/leases/{lease_id}/release", given(leaseUid=str(lease_uid), actor=actor))


def _part(value: NodeKey) -> str:
    return quote(str(value), safe="")


def record(response: httpx.Response) -> Record:
    """The JSON object of an answer, read whole. Raises the error it stands for, or `BadResponse`."""
    raise_for(response)
    try:
        found = response.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise BadResponse("The gateway answered with something that is no JSON object.", outcome=Outcome.UNKNOWN)
    return found


def raise_for(response: httpx.Response) -> None:
    """Raises what an answer that was read whole stands for, if it is no success."""
    if not response.is_success:
        raise rebuilt(response.status_code, dict(response.headers), response.content)


def unreachable(error: httpx.TransportError) -> GatewayError:
    """No answer at all. Only a connection that was never made says that nothing was sent."""
    never_sent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
    outcome = Outcome.NOT_SENT if never_sent else Outcome.UNKNOWN
    return LinkLost(f"The gateway gave no answer: {str(error) or type(error).__name__}.", outcome=outcome)


class Wholeness:
    """Checks a streamed answer against its `Content-Length` and its SHA-256, when it has them."""

    def __init__(self, headers: httpx.Headers) -> None:
        length = headers.get("content-length", "")
        self._due = int(length) if length.isdigit() else None
        self._digest_due = _digest(headers.get("repr-digest") or headers.get("content-digest") or "")
        self._digest = hashlib.sha256()
        self._bytes = 0

    def add(self, piece: bytes) -> None:
        self._bytes += len(piece)
        self._digest.update(piece)

    def check(self) -> str:
        """After the last byte: its SHA-256. Raises `BadResponse`."""
        if self._due is not None and self._bytes != self._due:
            raise BadResponse(f"The answer ended after {self._bytes} of {self._due} bytes.")
        if self._digest_due is not None and self._digest.digest() != self._digest_due:
            raise BadResponse("The answer's bytes are not those its digest was made of.")
        return self._digest.hexdigest()


def cut_off(error: httpx.TransportError) -> GatewayError:
    """An answer that began and did not end: it failed midway, and the gateway can be asked why."""
    return BadResponse(f"The answer was cut off: {str(error) or type(error).__name__}.", hop=Hop.GATEWAY)


def metadata_of(response: httpx.Response) -> Any:
    """The node's `metadata`, when the gateway passed it on."""
    try:
        return json.loads(response.headers.get("x-skygw-metadata", "null"))
    except ValueError:
        return None


def _digest(header: str) -> bytes | None:
    """RFC 9530, the SHA-256 in it."""
    match = _DIGEST.search(header)
    if match is None:
        return None
    try:
        return base64.b64decode(match[1], validate=True)
    except binascii.Error:
        return None
