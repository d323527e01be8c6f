"""What a hub service without a loop embeds: the internal API from any number of threads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any
from uuid import UUID

import httpx

from skygw.client import command_calls as calls
from skygw.client import internal_api as api
from skygw.client.command_calls import CancelReceipt, Tries, Validation
from skygw.client.internal_api import NodeKey, Record, Wholeness, metadata_of
from skygw.client.problems import rebuilt
from skygw.errors import GatewayError, LinkLost, Outcome
from skygw.ids import CommandId, LeaseId, LeaseUid
from skygw.protocol.gateway_frames import CancelMode


class BlockingAnswer:
    """A node's answer, while it comes. `sha256` is there after the last byte."""

    def __init__(self, response: httpx.Response, request_id: str) -> None:
        self._response = response
        self._wholeness = Wholeness(response.headers)
        self.request_id = request_id
        self.content_type: str = response.headers.get("content-type", "application/octet-stream")
        self.epoch: str | None = response.headers.get("x-skygw-epoch")
        self.metadata: Any = metadata_of(response)
        self.sha256: str | None = None

    def pieces(self) -> Iterator[bytes]:
        """The bytes as they come. Raises `BadResponse` when they do not come whole: discard them then."""
        try:
            for piece in self._response.iter_raw():
                self._wholeness.add(piece)
                yield piece
        except httpx.TransportError as error:
            raise api.cut_off(error) from error
        self.sha256 = self._wholeness.check()

    def read(self) -> bytes:
        """All of it, in memory."""
        return b"".join(self.pieces())


class BlockingCaller:
    """`caller.Caller` without a loop, for any number of threads. Raises the same errors."""

    def __init__(self, base_url: str, token: str, *, client: httpx.Client | None = None) -> None:
        self._client = client or httpx.Client(timeout=api.TIMEOUTS, trust_env=False)
        self._client.base_url = httpx.URL(base_url)
        self._client.headers.update(api.HEADERS)
        self.renew_token(token)

    def __enter__(self) -> "BlockingCaller":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def renew_token(self, token: str) -> None:
        """For requests from now on."""
        self._client.headers["authorization"] = f"Bearer {token}"

    @contextmanager
    def direct(
        self, node: NodeKey, operation: str, params: Record, *, timeout_s: float = 30.0, **options: Any
    ) -> Iterator[BlockingAnswer]:
        """See `Caller.direct`, whose options these are."""
        call = api.direct_call(node, operation, params, timeout_s=timeout_s, **options)
        response = self._send(call, stream=True)
        try:
            if not response.is_success:
                raise rebuilt(response.status_code, dict(response.headers), response.read())
            yield BlockingAnswer(response, str((call.body or {})["requestId"]))
        finally:
            response.close()

    def command(
        self,
        command: Record,
        *,
        command_id: CommandId,
        telescope_uid: UUID | None = None,
        device_uid: UUID | None = None,
        **options: Any,
    ) -> Record:
        """See `Caller.command`, whose options these are; of leases `lease_uid` alone."""
        call = calls.command_call(
            command, command_id=command_id, telescope_uid=telescope_uid, device_uid=device_uid, **options
        )
        return self._insist(call)

    def acquire_lease(
        self,
        lease_uid: LeaseUid,
        *,
        duration_s: float,
        telescope_uid: UUID | None = None,
        device_uid: UUID | None = None,
        **options: Any,
    ) -> Record:
        """Control for so many seconds, unless `renew_lease` comes before; the options are those of `Caller.lease`. The
        secret is the caller's own, a random UUID: the same request again, after a lost answer, finds the same lease.
        Each `command` shows it as `lease_uid`.
        """
        call = api.lease_call(
            lease_uid, telescope_uid=telescope_uid, device_uid=device_uid, duration_s=duration_s, **options
        )
        return self._record(call)

    def renew_lease(self, lease_id: LeaseId, lease_uid: LeaseUid, *, actor: Record | None = None) -> Record:
        """It lasts its duration from now. Nobody does this for a caller without a loop."""
        return self._record(api.renew_lease_call(lease_id, lease_uid, actor=actor))

    def release_lease(self, lease_id: LeaseId, lease_uid: LeaseUid, *, actor: Record | None = None) -> Record:
        """Gives control back; nothing is stopped. Again is no mistake."""
        return self._record(api.release_lease_call(lease_id, lease_uid, actor=actor))

    def validate_command(self, command: Record, *, command_id: CommandId | None = None, **options: Any) -> Validation:
        """See `Caller.validate_command`, whose options these are."""
        call = calls.validation_call(command, command_id=command_id, **options)
        return calls.validation_of(self._insist(call))

    def cancel_command(
        self,
        command_id: CommandId,
        *,
        mode: CancelMode = CancelMode.GRACEFUL,
        grace_s: float | None = None,
        wait_s: float = 0.0,
        actor: Record | None = None,
    ) -> CancelReceipt:
        """See `Caller.cancel_command`."""
        call = calls.cancel_call(command_id, mode=mode, grace_s=grace_s, wait_s=wait_s, actor=actor)
        return calls.receipt_of(self._insist(call))

    def resolve_command(
        self, command_id: CommandId, outcome: Outcome, *, reason: str, actor: Record | None = None
    ) -> Record:
        """See `Caller.resolve_command`."""
        return self._record(calls.resolve_call(command_id, outcome, reason=reason, actor=actor))

    def command_record(self, command_id: CommandId) -> Record:
        return self._record(calls.record_call(command_id))

    def commands(
        self, *, page: int = 1, size: int = 50, state: str | None = None, node: NodeKey | None = None
    ) -> Record:
        return self._record(calls.page_call(page=page, size=size, state=state, node=node))

    def node(self, node: NodeKey) -> Record:
        return self._record(api.node_call(node))

    def nodes(self, *, page: int = 1, size: int = 50) -> Record:
        return self._record(api.nodes_call(page, size))

    def call_outcome(self, request_id: str) -> Record:
        return self._record(api.call_outcome_call(request_id))

    def _insist(self, call: api.Call) -> Record:
        tries = Tries(call, now=time.monotonic())
        while True:
            try:
                response = self._send(call, stream=False)
            except LinkLost as error:
                pause_s, call = tries.after(error, now=time.monotonic())
                time.sleep(pause_s)
                continue
            try:
                return api.record(response)
            except GatewayError as error:
                tries.judge(error)
                raise

    def _record(self, call: api.Call) -> Record:
        return api.record(self._send(call, stream=False))

    def _send(self, call: api.Call, *, stream: bool) -> httpx.Response:
        try:
            return self._client.send(self._client.build_request(**call.arguments()), stream=stream)
        except httpx.TransportError as error:
            raise api.unreachable(error) from error
