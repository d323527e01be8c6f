"""What a hub service on Trio embeds: direct requests, commands and look-ups at the gateway's internal API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any
from uuid import UUID

import httpx
import trio

from skygw.client import command_calls as calls
from skygw.client import internal_api as api
from skygw.client.command_calls import CancelReceipt, OnCallerGone, ReceiptWord, Tries, Validation
from skygw.client.control_lease import DURATION_S, ControlLease, acquire
from skygw.client.internal_api import NodeKey, Record, Wholeness, metadata_of
from skygw.client.problems import OtherRefusal, rebuilt, retry_of
from skygw.errors import GatewayError, LinkLost, Outcome
from skygw.ids import CommandId, LeaseUid
from skygw.protocol.gateway_frames import CancelMode, OnExpiry

__all__ = ["Answer", "Caller", "CancelReceipt", "OtherRefusal", "ReceiptWord", "Validation", "retry_of"]


class Answer:
    """A node's answer, while it comes. `sha256` is there after the last byte."""

    def __init__(self, response: httpx.Response, request_id: str) -> None:
        self._response = response
        self._wholeness = Wholeness(response.headers)
        self.request_id = request_id
        self.content_type: str = response.headers.get("content-type", "application/octet-stream")
        self.epoch: str | None = response.headers.get("x-skygw-epoch")
        self.metadata: Any = metadata_of(response)
        self.sha256: str | None = None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The bytes as they come. Raises `BadResponse` when they do not come whole: discard them then."""
        try:
            async for piece in self._response.aiter_raw():
                self._wholeness.add(piece)
                yield piece
        except httpx.TransportError as error:
            raise api.cut_off(error) from error
        self.sha256 = self._wholeness.check()

    async def read(self) -> bytes:
        """All of it, in memory."""
        return b"".join([piece async for piece in self.pieces()])


class Caller:
    """An async context manager. Every method raises a `GatewayError`: what it says is known is known, no more."""

    def __init__(self, base_url: str, token: str, *, client: httpx.AsyncClient | None = None) -> None:
        """`client` brings its own settings (TLS, proxies, a transport for tests) and is closed with this one."""
        self._client = client or httpx.AsyncClient(timeout=api.TIMEOUTS, trust_env=False)
        self._client.base_url = httpx.URL(base_url)
        self._client.headers.update(api.HEADERS)
        self.renew_token(token)

    async def __aenter__(self) -> "Caller":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    def renew_token(self, token: str) -> None:
        """For requests from now on."""
        self._client.headers["authorization"] = f"Bearer {token}"

    @asynccontextmanager
    async def direct(
        self,
        node: NodeKey,
        operation: str,
        params: Record,
        *,
        timeout_s: float = 30.0,
        connect_wait_s: float | None = None,
        offset: int | None = None,
        length: int | None = None,
        if_digest: str | None = None,
        request_id: str | None = None,
        actor: Record | None = None,
    ) -> AsyncIterator[Answer]:
        """Asks a node to read or transfer something. Leaving the block early cancels the call at the node."""
        call = api.direct_call(
            node,
            operation,
            params,
            timeout_s=timeout_s,
            connect_wait_s=connect_wait_s,
            offset=offset,
            length=length,
            if_digest=if_digest,
            request_id=request_id,
            actor=actor,
        )
        response = await self._send(call, stream=True)
        try:
            if not response.is_success:
                raise rebuilt(response.status_code, dict(response.headers), await _whole(response))
            yield Answer(response, str((call.body or {})["requestId"]))
        finally:
            await response.aclose()

    async def command(
        self,
        command: Record,
        *,
        command_id: CommandId,
        telescope_uid: UUID | None = None,
        device_uid: UUID | None = None,
        timeout_s: float | None = None,
        wait_s: float = 0.0,
        lease: ControlLease | None = None,
        lease_uid: LeaseUid | None = None,
        origin: Record | None = None,
        actor: Record | None = None,
        graph_revision: int | None = None,
        on_caller_gone: OnCallerGone | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """Sends a command; its record after at most `wait_s`. The same id again is a question, not a second action.

        So where an answer is lost, it is asked for again by itself, within what is left of `timeout_s` (5 s if that is
        not given) and of `wait_s`. If there is none then, the error says `unknown` as soon as one try may have
        arrived: keep the id and ask with `command_record`, or call this once more with the same id.

        What is no stop needs a lease: one that `lease()` gave, whose actor is taken for the command's where that names
        none, or the secret of one that was acquired elsewhere.

        Cancelling sends no cancel; with `on_caller_gone="cancel"` the gateway does when it sees a waiting caller leave.
        """
        if lease is not None:
            lease_uid, actor = lease.lease_uid, actor or lease.actor
        call = calls.command_call(
            command,
            command_id=command_id,
            telescope_uid=telescope_uid,
            device_uid=device_uid,
            timeout_s=timeout_s,
            wait_s=wait_s,
            lease_uid=lease_uid,
            origin=origin,
            actor=actor,
            graph_revision=graph_revision,
            on_caller_gone=on_caller_gone,
            traceparent=traceparent,
        )
        return await self._insist(call)

    async def validate_command(
        self,
        command: Record,
        *,
        command_id: CommandId | None = None,
        telescope_uid: UUID | None = None,
        device_uid: UUID | None = None,
        timeout_s: float | None = None,
        lease: ControlLease | None = None,
        lease_uid: LeaseUid | None = None,
        actor: Record | None = None,
        graph_revision: int | None = None,
    ) -> Validation:
        """Everything that would refuse this command now; nothing is sent, nothing stored. Not for stops: the gateway
        sends these, whatever accompanies them, so here that is a `ValueError`.
        """
        if lease is not None:
            lease_uid, actor = lease.lease_uid, actor or lease.actor
        call = calls.validation_call(
            command,
            command_id=command_id,
            telescope_uid=telescope_uid,
            device_uid=device_uid,
            timeout_s=timeout_s,
            lease_uid=lease_uid,
            actor=actor,
            graph_revision=graph_revision,
        )
        return calls.validation_of(await self._insist(call))

    @asynccontextmanager
    async def lease(
        self,
        *,
        telescope_uid: UUID | None = None,
        device_uid: UUID | None = None,
        duration_s: float = DURATION_S,
        on_expiry: OnExpiry | None = None,
        deadman_s: float | None = None,
        actor: Record | None = None,
    ) -> AsyncIterator[ControlLease]:
        """Control of a telescope, or of a device that telescopes share, for as long as the block lasts; seconds.

        It is renewed meanwhile, each third of its time, and given back at the end, however that comes; nothing is
        stopped by that. When control is lost on the way (an administrator took it, or the gateway could not be asked
        in time), the block is cancelled and that is raised: `LeaseExpired`, `StaleFence`, `NotFound`, `Forbidden`.
        What the node does when nobody renews is `on_expiry`; `deadman_s` is the longest silence it allows.

        An enclosure that telescopes share has a lease of its own, by `device_uid`; or enter a block for each of its
        telescopes, and show the lease of any. Raises `LeaseHeld` while somebody else has control.
        """
        held = await acquire(
            self._record,
            telescope_uid=telescope_uid,
            device_uid=device_uid,
            duration_s=duration_s,
            on_expiry=on_expiry,
            deadman_s=deadman_s,
            actor=actor,
        )
        problem: Exception | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(held.keep, self._record, nursery.cancel_scope)
                try:
                    yield held
                except Exception as error:  # noqa: BLE001 - raised below, without the nursery's group around it
                    problem = error
                nursery.cancel_scope.cancel()
        finally:
            await held.give_back(self._record)
        if problem is not None:
            raise problem
        if held.lost is not None:
            raise held.lost

    async def cancel_command(
        self,
        command_id: CommandId,
        *,
        mode: CancelMode = CancelMode.GRACEFUL,
        grace_s: float | None = None,
        wait_s: float = 0.0,
        actor: Record | None = None,
    ) -> CancelReceipt:
        """What became of the cancel after at most `wait_s`. Asked for again by itself where an answer is lost."""
        call = calls.cancel_call(command_id, mode=mode, grace_s=grace_s, wait_s=wait_s, actor=actor)
        return calls.receipt_of(await self._insist(call))

    async def resolve_command(
        self, command_id: CommandId, outcome: Outcome, *, reason: str, actor: Record | None = None
    ) -> Record:
        """Closes what is `unknown` and will stay so, as an administrator; `outcome`: `SUCCEEDED`, `FAILED`, `REFUSED`
        or `CANCELED`. Raises `IllegalTransition` for anything that is not unknown.
        """
        return await self._record(calls.resolve_call(command_id, outcome, reason=reason, actor=actor))

    async def command_record(self, command_id: CommandId) -> Record:
        """A command as known now: its state, each step with its time, outcome, proof."""
        return await self._record(calls.record_call(command_id))

    async def commands(
        self, *, page: int = 1, size: int = 50, state: str | None = None, node: NodeKey | None = None
    ) -> Record:
        """A page, the newest first: `items`, `total`, `page`, `size`, `pages`."""
        return await self._record(calls.page_call(page=page, size=size, state=state, node=node))

    async def node(self, node: NodeKey) -> Record:
        return await self._record(api.node_call(node))

    async def nodes(self, *, page: int = 1, size: int = 50) -> Record:
        """A page: `items`, `total`, `page`, `size`, `pages`."""
        return await self._record(api.nodes_call(page, size))

    async def call_outcome(self, request_id: str) -> Record:
        """What became of a direct request, for 60 s after it."""
        return await self._record(api.call_outcome_call(request_id))

    async def _insist(self, call: api.Call) -> Record:
        """For what is one action however often it is asked."""
        tries = Tries(call, now=trio.current_time())
        while True:
            try:
                response = await self._send(call, stream=False)
            except LinkLost as error:
                pause_s, call = tries.after(error, now=trio.current_time())
                await trio.sleep(pause_s)
                continue
            try:
                return api.record(response)
            except GatewayError as error:
                tries.judge(error)
                raise

    async def _record(self, call: api.Call) -> Record:
        return api.record(await self._send(call, stream=False))

    async def _send(self, call: api.Call, *, stream: bool) -> httpx.Response:
        try:
            return await self._client.send(self._client.build_request(**call.arguments()), stream=stream)
        except httpx.TransportError as error:
            raise api.unreachable(error) from error


async def _whole(response: httpx.Response) -> bytes:
    try:
        return await response.aread()
    except httpx.TransportError as error:
        raise api.unreachable(error) from error
