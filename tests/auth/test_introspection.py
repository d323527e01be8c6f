"""Opaque tokens are asked about, briefly remembered, and never believed on anybody else's word."""

import base64
import json
import logging
from urllib.parse import parse_qs

import httpx
import pytest
import trio

from skygw.auth import introspection
from skygw.auth.introspection import MAX_CACHE_S, Introspection, Said
from skygw.auth.issuer_http import REACHABLE_FOR_S, IssuerUnavailable
from skygw.errors import StartupError, Unauthenticated
from tests.auth.conftest import Clock
from tests.auth.signing import claims
from tests.fakes.issuer import INTROSPECTION_PATH, FakeIssuer, Mood, fake_issuer

PATIENCE_S = 10
SECRET = "s3cret:with/odd chars"


def client_of(
    issuer: FakeIssuer,
    http: httpx.AsyncClient,
    clock: Clock,
    *,
    cache_s: float = 2,
    timeout_s: float = 5,
    stale_s: float = 0,
) -> Introspection:
    return Introspection(
        issuer.introspection_url,
        http,
        client_id="gateway 1",
        client_secret=SECRET,
        cache_s=cache_s,
        timeout_s=timeout_s,
        stale_s=stale_s,
        now=clock,
    )


async def test_an_active_token_is_what_the_issuer_says(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.introspected["opaque"] = claims()
    answer = await client_of(issuer, http, clock).claims("opaque")
    assert answer["sub"] == claims()["sub"]


async def test_the_gateway_shows_its_own_credentials_and_the_token_in_the_body(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.introspected["opaque+/=&x"] = claims()
    await client_of(issuer, http, clock).claims("opaque+/=&x")
    [request] = issuer.requests
    scheme, _, credentials = request.headers["authorization"].partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(credentials) == b"gateway+1:s3cret%3Awith%2Fodd+chars"
    assert parse_qs(request.body.decode())["token"] == ["opaque+/=&x"]
    assert request.path == INTROSPECTION_PATH


async def test_a_token_that_is_not_active_is_refused(issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock) -> None:
    with pytest.raises(Unauthenticated, match="not active"):
        await client_of(issuer, http, clock).claims("unknown")


@pytest.mark.parametrize("active", ["true", 1, None, {}, [True]])
async def test_only_true_is_active(issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, active: object) -> None:
    issuer.raw_introspection = json.dumps({"active": active, **claims()}).encode()
    with pytest.raises(Unauthenticated):
        await client_of(issuer, http, clock).claims("opaque")


async def test_an_answer_is_remembered_for_the_time_set_and_no_longer(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.introspected["opaque"] = claims()
    client = client_of(issuer, http, clock, cache_s=MAX_CACHE_S)
    for _ in range(3):
        await client.claims("opaque")
    assert issuer.hits[INTROSPECTION_PATH] == 1
    issuer.introspected.clear()
    clock.seconds += MAX_CACHE_S
    with pytest.raises(Unauthenticated):
        await client.claims("opaque")


async def test_the_time_counts_from_the_question_not_from_the_answer(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.introspected["opaque"] = claims()
    client = client_of(issuer, http, clock)
    await issuer.become(Mood.STALLED)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.claims, "opaque")
            await issuer.wait_for_hits(INTROSPECTION_PATH, 1)
            clock.seconds += 2
            await issuer.become(Mood.WELL)
    await client.claims("opaque")
    assert issuer.hits[INTROSPECTION_PATH] == 2


async def test_a_refusal_is_not_remembered(issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock) -> None:
    client = client_of(issuer, http, clock)
    with pytest.raises(Unauthenticated):
        await client.claims("opaque")
    issuer.introspected["opaque"] = claims()
    assert (await client.claims("opaque"))["active"] is True


async def test_what_is_remembered_is_bounded(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(introspection, "MAX_CACHED_TOKENS", 2)
    client = client_of(issuer, http, clock)
    for token in ("a", "b", "c", "c", "b", "a"):
        issuer.introspected[token] = claims()
        await client.claims(token)
    assert issuer.hits[INTROSPECTION_PATH] == 4


@pytest.mark.parametrize("cache_s", [-1.0, 5.1, float("nan"), float("inf")])
async def test_a_cache_that_outlasts_a_revocation_stops_the_start(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, cache_s: float
) -> None:
    with pytest.raises(StartupError, match="0 to 5 s"):
        client_of(issuer, http, clock, cache_s=cache_s)


@pytest.mark.parametrize(
    "mood",
    [Mood.SERVER_ERROR, Mood.HANGING_UP, Mood.ENDLESS, Mood.COMPRESSED, Mood.STALLED, Mood.REDIRECTING],
)
async def test_an_issuer_that_cannot_say_is_unavailable_and_the_token_neither_good_nor_bad(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, mood: Mood
) -> None:
    issuer.introspected["opaque"] = claims()
    issuer.redirect_to = issuer.introspection_url
    await issuer.become(mood)
    client = client_of(issuer, http, clock, timeout_s=0.2 if mood is Mood.STALLED else 5)
    with trio.fail_after(PATIENCE_S):
        with pytest.raises(IssuerUnavailable) as refused:
            await client.claims("opaque")
    assert "opaque" not in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert not await client.issuer_reachable()
    assert issuer.hits[INTROSPECTION_PATH] == 1


@pytest.mark.parametrize("answer", [b"", b"[]", b"<html>", b'{"active": true, "active": false}', b"\xff"])
async def test_an_answer_that_cannot_be_read_is_no_answer(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, answer: bytes
) -> None:
    issuer.raw_introspection = answer
    with pytest.raises(IssuerUnavailable, match="cannot be read"):
        await client_of(issuer, http, clock).claims("opaque")


async def test_a_flood_of_made_up_tokens_reaches_the_issuer_a_few_at_a_time(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    client = client_of(issuer, http, clock)
    refused: list[str] = []

    async def ask(token: str) -> None:
        try:
            await client.claims(token)
        except Unauthenticated:
            refused.append(token)

    await issuer.become(Mood.STALLED)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(ask, f"made-up-{n}")
            await issuer.wait_for_hits(INTROSPECTION_PATH, introspection.MAX_IN_FLIGHT)
            with trio.move_on_after(0.1) as one_more:
                await issuer.wait_for_hits(INTROSPECTION_PATH, introspection.MAX_IN_FLIGHT + 1)
            await issuer.become(Mood.WELL)
    assert one_more.cancelled_caught
    assert len(refused) == 40


async def test_a_flood_of_made_up_node_tokens_keeps_no_service_waiting(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    client = client_of(issuer, http, clock)
    issuer.introspected["service"] = claims()
    heard: list[Said] = []

    async def stranger(token: str) -> None:
        with pytest.raises(Unauthenticated):
            await client.claims(token)

    async def service() -> None:
        heard.append(await client.service_claims("service"))

    await issuer.become(Mood.STALLED)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            for n in range(40):
                nursery.start_soon(stranger, f"made-up-{n}")
            await issuer.wait_for_hits(INTROSPECTION_PATH, introspection.MAX_IN_FLIGHT)
            nursery.start_soon(service)
            await issuer.wait_for_hits(INTROSPECTION_PATH, introspection.MAX_IN_FLIGHT + 1)
            await issuer.become(Mood.WELL)
    assert b"token=service" in issuer.requests[introspection.MAX_IN_FLIGHT].body
    assert [said.stale for said in heard] == [False]


async def test_while_the_issuer_is_away_its_last_word_on_a_service_stands_in_for_a_while(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    client = client_of(issuer, http, clock, stale_s=60)
    issuer.introspected["service"] = claims()
    assert not (await client.service_claims("service")).stale
    await issuer.become(Mood.SERVER_ERROR)
    clock.seconds += 59
    said = await client.service_claims("service")
    assert (said.stale, said.claims["sub"]) == (True, claims()["sub"])
    await client.service_claims("service")
    assert issuer.hits[INTROSPECTION_PATH] == 2  # a second stop does not wait for the issuer again
    with pytest.raises(IssuerUnavailable):
        await client.service_claims("never seen")
    with pytest.raises(IssuerUnavailable):
        await client.claims("service")  # as a node's
    clock.seconds += 1
    with pytest.raises(IssuerUnavailable):
        await client.service_claims("service")
    await issuer.become(Mood.WELL)
    assert not (await client.service_claims("service")).stale


async def test_a_service_token_the_issuer_has_revoked_is_not_believed_when_the_issuer_goes_away(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    client = client_of(issuer, http, clock, stale_s=60)
    issuer.introspected["service"] = claims()
    await client.service_claims("service")
    issuer.introspected.clear()
    clock.seconds += 10
    with pytest.raises(Unauthenticated):
        await client.service_claims("service")
    await issuer.become(Mood.SERVER_ERROR)
    with pytest.raises(IssuerUnavailable):
        await client.service_claims("service")


async def test_reachability_is_asked_with_a_token_that_is_nobodys(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    client = client_of(issuer, http, clock)
    assert await client.issuer_reachable()
    assert await client.issuer_reachable()
    assert issuer.hits[INTROSPECTION_PATH] == 1
    await issuer.become(Mood.SERVER_ERROR)
    clock.seconds += REACHABLE_FOR_S
    assert not await client.issuer_reachable()


async def test_nobody_listening_is_an_unavailable_issuer(http: httpx.AsyncClient, clock: Clock) -> None:
    async with fake_issuer() as gone:
        pass
    with pytest.raises(IssuerUnavailable, match="cannot be reached"):
        await client_of(gone, http, clock).claims("opaque")


async def test_neither_token_nor_secret_is_ever_logged(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    issuer.introspected["opaque-token"] = claims()
    client = client_of(issuer, http, clock)
    await client.claims("opaque-token")
    await issuer.become(Mood.SERVER_ERROR)
    with pytest.raises(IssuerUnavailable):
        await client.claims("other-token")
    credentials = issuer.requests[0].headers["authorization"].removeprefix("Basic ")
    assert caplog.records
    for secret in ("opaque-token", "other-token", "s3cret", credentials):
        assert secret not in caplog.text
