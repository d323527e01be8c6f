"""What a hub service gets back from the gateway: whole bytes, records, or an error that says what is known."""

import base64
import hashlib
from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
import trio

from skygw.client.blocking import BlockingCaller
from skygw.client.caller import Caller, OtherRefusal, retry_of
from skygw.errors import (
    BadResponse,
    Busy,
    DeadlineExceeded,
    GatewayError,
    Hop,
    Invalid,
    LinkLost,
    NodeRefused,
    Outcome,
    Reached,
    Retry,
)
from skygw.ids import CommandId, LeaseId, LeaseUid
from skygw.protocol.gateway_frames import OnExpiry
from tests.fakes.canned_http import CannedHttp, canned_http

NODE = UUID(int=42)
DATA = b"SIMPLE  =                    T" * 1_000


@pytest.fixture
async def http() -> AsyncIterator[CannedHttp]:
    async with canned_http() as server:
        yield server


def repr_digest(data: bytes) -> str:
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


async def test_a_direct_request_streams_the_bytes_of_the_node(http: CannedHttp) -> None:
    http.answer(200, DATA, Content_Type="image/fits", X_Skygw_Epoch="7", X_Skygw_Metadata='{"row":1}')
    async with (
        Caller(http.base_url, "secret") as caller,
        caller.direct(NODE, "asset.read", {"asset_uid": "a"}, timeout_s=5, offset=3, request_id="r-1") as answer,
    ):
        data = await answer.read()

    assert data == DATA
    assert (answer.content_type, answer.epoch, answer.metadata, answer.request_id) == (
        "image/fits",
        "7",
        {"row": 1},
        "r-1",
    )
    assert answer.sha256 == hashlib.sha256(DATA).hexdigest()
    assert http.heads[0].startswith(f"POST /internal/nodes/{NODE}/direct HTTP/1.1")
    assert "Bearer secret" in http.heads[0]
    assert http.bodies[0] == {
        "operation": "asset.read",
        "params": {"asset_uid": "a"},
        "timeoutS": 5,
        "offset": 3,
        "requestId": "r-1",
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Length": str(len(DATA) + 1)},
        {"Transfer_Encoding": "chunked", "Content_Length": "0"},
        {"Repr_Digest": repr_digest(b"other bytes")},
    ],
    ids=["too short", "no last chunk", "another digest"],
)
async def test_an_answer_that_is_not_whole_is_never_taken_for_one(http: CannedHttp, headers: dict[str, str]) -> None:
    http.answer(200, b"5\r\nhello\r\n" if "Transfer_Encoding" in headers else DATA, **headers)
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(BadResponse) as caught:
            async with caller.direct(NODE, "asset.read", {}) as answer:
                await answer.read()

    assert caught.value.outcome is Outcome.UNKNOWN


async def test_a_right_digest_is_accepted(http: CannedHttp) -> None:
    http.answer(200, DATA, Repr_Digest=repr_digest(DATA))
    async with Caller(http.base_url, "t") as caller, caller.direct(NODE, "asset.read", {}) as answer:
        data = await answer.read()

    assert data == DATA


async def test_an_error_comes_back_as_its_type_with_everything_that_is_known(http: CannedHttp) -> None:
    http.answer(
        504,
        {
            "detail": "The time ran out.",
            "code": "deadline_exceeded",
            "outcome": "unknown",
            "retry": "query_first",
            "hop": "gateway",
            "reached": "running",
            "requestId": "r-2",
        },
    )
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(DeadlineExceeded) as caught:
            async with caller.direct(NODE, "asset.read", {}):
                raise AssertionError

    error = caught.value
    assert (error.message, error.outcome, error.reached, error.hop) == (
        "The time ran out.",
        Outcome.UNKNOWN,
        Reached.RUNNING,
        Hop.GATEWAY,
    )
    assert retry_of(error) is Retry.QUERY_FIRST
    assert error.details["requestId"] == "r-2"


async def test_the_nodes_own_word_is_in_its_refusal(http: CannedHttp) -> None:
    details = {"node": {"code": "not_found", "message": "no", "details": {"reason": "acts_not_allowed"}}}
    http.answer(404, {"detail": "no", "code": "node_refused", "outcome": "refused", "hop": "node", "details": details})
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(NodeRefused) as caught:
            await caller.node(NODE)

    assert (caught.value.node_code, caught.value.outcome, caught.value.hop) == (
        "not_found",
        Outcome.REFUSED,
        Hop.NODE,
    )


async def test_a_reason_without_a_type_keeps_its_word_and_the_gateways_advice(http: CannedHttp) -> None:
    http.answer(409, {"detail": "no", "code": "new_word", "outcome": "not_sent", "retry": "after"}, Retry_After="9")
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(OtherRefusal) as caught:
            await caller.nodes()

    assert (caught.value.code, caught.value.retry_after_s, retry_of(caught.value)) == ("new_word", 9.0, Retry.AFTER)


@pytest.mark.parametrize(
    ("status", "body", "kind", "outcome"),
    [
        (502, b"<html>proxy</html>", OtherRefusal, Outcome.UNKNOWN),
        (429, {"code": "busy", "detail": "enough"}, Busy, Outcome.NOT_SENT),
        (422, {"code": "invalid", "detail": [{"loc": ["timeoutS"], "msg": "too big"}]}, Invalid, Outcome.NOT_SENT),
        (422, b"[]", Invalid, Outcome.NOT_SENT),
    ],
)
async def test_odd_error_bodies_still_become_errors(
    http: CannedHttp, status: int, body: bytes | dict[str, object], kind: type[GatewayError], outcome: Outcome
) -> None:
    http.answer(status, body)
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(kind) as caught:
            await caller.call_outcome("r/1?")

    assert caught.value.outcome is outcome
    assert http.heads[0].startswith("GET /internal/calls/r%2F1%3F ")


async def test_only_a_connection_never_made_says_that_nothing_was_sent(http: CannedHttp) -> None:
    http.answers.append(b"")
    async with Caller(http.base_url, "t") as caller:
        with pytest.raises(LinkLost) as answered_nothing:
            await caller.nodes()
    async with Caller("http://127.0.0.1:1", "t") as caller:
        with pytest.raises(LinkLost) as refused:
            await caller.nodes()

    assert answered_nothing.value.outcome is Outcome.UNKNOWN
    assert refused.value.outcome is Outcome.NOT_SENT


async def test_a_service_without_a_loop_takes_renews_shows_and_releases_a_lease_itself(http: CannedHttp) -> None:
    lease_id, lease_uid = LeaseId(uuid4()), LeaseUid(uuid4())
    for _ in range(4):
        http.answer(200, {"id": str(lease_id)})

    def work() -> None:
        with BlockingCaller(http.base_url, "t") as caller:
            caller.acquire_lease(lease_uid, duration_s=60, device_uid=NODE, on_expiry=OnExpiry.STOP)
            caller.renew_lease(lease_id, lease_uid)
            caller.command(
                {"command_type": "enclosure.close"},
                command_id=CommandId(uuid4()),
                device_uid=NODE,
                lease_uid=lease_uid,
            )
            caller.release_lease(lease_id, lease_uid)

    await trio.to_thread.run_sync(work)

    mine = {"leaseUid": str(lease_uid)}
    acquired, renewed, commanded, released = http.bodies
    assert acquired == {**mine, "deviceUid": str(NODE), "durationS": 60, "onExpiry": "stop"}
    assert (renewed, commanded["leaseUid"], released) == (mine, str(lease_uid), mine)
    assert [head.split()[1] for head in http.heads] == [
        "/internal/leases",
        f"/internal/leases/{lease_id}/renew",
        "/internal/commands",
        f"/internal/leases/{lease_id}/release",
    ]


async def test_the_blocking_caller_does_the_same_without_a_loop(http: CannedHttp) -> None:
    http.answer(200, DATA)
    http.answer(200, DATA, Content_Length=str(len(DATA) + 5))
    http.answer(200, {"items": []})
    http.answer(429, {"code": "busy", "detail": "enough"})
    found: list[object] = []

    def work() -> None:
        with BlockingCaller(http.base_url, "t") as caller:
            with caller.direct(NODE, "asset.read", {}, offset=1) as answer:
                found.append(answer.read() == DATA)
            with pytest.raises(BadResponse), caller.direct(NODE, "asset.read", {}) as answer:
                answer.read()
            found.append(caller.nodes())
            with pytest.raises(Busy):
                caller.command({"command_type": "mount.stop"}, command_id=CommandId(uuid4()), telescope_uid=NODE)

    await trio.to_thread.run_sync(work)

    assert found == [True, {"items": []}]
    assert http.answers == []
