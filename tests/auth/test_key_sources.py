"""Keys stay usable while the issuer rotates them, misbehaves or is away, and strangers cannot make us ask."""

import logging
import os
from pathlib import Path

import httpx
import pytest
import trio

from skygw.auth import key_sources
from skygw.auth.issuer_http import REACHABLE_FOR_S, IssuerUnavailable, issuer_address
from skygw.auth.key_sources import (
    RETRY_S,
    UNKNOWN_KID_REFETCH_S,
    FixedKeys,
    JwksFile,
    JwksUrl,
)
from skygw.auth.keys import KeySet, parse_jwks
from skygw.errors import RoutingUnavailable, StartupError
from tests.auth.conftest import Clock
from tests.auth.signing import jwk, jwks, private_jwk
from tests.fakes.issuer import JWKS_PATH, FakeIssuer, Mood, fake_issuer

PATIENCE_S = 10


def source_at(issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, *, timeout_s: float = 5) -> JwksUrl:
    return JwksUrl(issuer.jwks_url, http, timeout_s=timeout_s, now=clock)


async def test_the_published_keys_are_fetched_once_and_kept(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    for _ in range(3):
        assert "p256" in await source.key_set("p256")
    assert "p256" in await source.key_set(None)
    assert issuer.hits[JWKS_PATH] == 1


async def test_a_rotated_key_is_found_when_a_token_names_it(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    await source.key_set("p256")
    issuer.publish(jwk("p256"), jwk("ed"))
    assert "ed" in await source.key_set("ed")


async def test_unknown_key_ids_make_one_fetch_in_thirty_seconds(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    await source.key_set("p256")
    for n in range(20):
        await source.key_set(f"made-up-{n}")
    assert issuer.hits[JWKS_PATH] == 2
    clock.seconds += UNKNOWN_KID_REFETCH_S - 0.1
    await source.key_set("made-up")
    assert issuer.hits[JWKS_PATH] == 2
    clock.seconds += 0.1
    await source.key_set("made-up")
    assert issuer.hits[JWKS_PATH] == 3


async def test_many_callers_at_once_share_one_fetch(issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    answers: list[KeySet] = []

    async def ask(kid: str) -> None:
        answers.append(await source.key_set(kid))

    await issuer.become(Mood.STALLED)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as callers:
            for n in range(20):
                callers.start_soon(ask, "p256" if n % 2 else f"made-up-{n}")
            await issuer.wait_for_hits(JWKS_PATH, 1)
            await issuer.become(Mood.WELL)
    assert len(answers) == 20
    assert issuer.hits[JWKS_PATH] == 1


async def test_a_caller_who_hangs_up_does_not_waste_the_fetch(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    await source.key_set("p256")
    issuer.publish(jwk("p256"), jwk("ed"))
    await issuer.become(Mood.STALLED)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as callers:
            callers.start_soon(source.key_set, "made-up")
            await issuer.wait_for_hits(JWKS_PATH, 2)
            callers.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await issuer.become(Mood.WELL)
    assert "ed" in await source.key_set("ed")
    assert issuer.hits[JWKS_PATH] == 2


@pytest.mark.parametrize("mood", [Mood.SERVER_ERROR, Mood.HANGING_UP, Mood.ENDLESS, Mood.COMPRESSED, Mood.STALLED])
async def test_a_misbehaving_issuer_leaves_the_last_good_keys_in_use(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, mood: Mood
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock, timeout_s=0.2 if mood is Mood.STALLED else 5)
    await source.key_set("p256")
    await issuer.become(mood)
    with trio.fail_after(PATIENCE_S):
        keys = await source.key_set("made-up")
    assert issuer.hits[JWKS_PATH] == 2
    assert "p256" in keys
    assert not await source.issuer_reachable()


@pytest.mark.parametrize(
    "document",
    [b"", b"<html>", b'{"keys": []}', jwks(private_jwk("ed")), b" " * 200_000, jwks(jwk("ed", use="enc"))],
)
async def test_an_unusable_key_set_leaves_the_last_good_one_in_use(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, document: bytes
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    await source.key_set("p256")
    issuer.jwks = document
    keys = await source.key_set("ed")
    assert issuer.hits[JWKS_PATH] == 2
    assert "p256" in keys
    assert "ed" not in keys


async def test_a_redirect_is_not_followed(issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock) -> None:
    async with fake_issuer() as elsewhere:
        elsewhere.publish(jwk("p256"))
        issuer.redirect_to = elsewhere.jwks_url
        await issuer.become(Mood.REDIRECTING)
        with pytest.raises(IssuerUnavailable, match="answered 302"):
            await source_at(issuer, http, clock).key_set("p256")
        assert elsewhere.hits[JWKS_PATH] == 0


async def test_without_any_keys_yet_the_caller_is_told_to_come_back(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    await issuer.become(Mood.SERVER_ERROR)
    source = source_at(issuer, http, clock)
    with pytest.raises(RoutingUnavailable, match="answered 500") as refused:
        await source.key_set("p256")
    assert refused.value.retry_after_s == 5.0


async def test_without_any_keys_yet_the_issuer_is_asked_again_after_a_while(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    await issuer.become(Mood.SERVER_ERROR)
    source = source_at(issuer, http, clock)
    for _ in range(3):
        with pytest.raises(IssuerUnavailable):
            await source.key_set("p256")
    assert issuer.hits[JWKS_PATH] == 1
    issuer.publish(jwk("p256"))
    await issuer.become(Mood.WELL)
    clock.seconds += RETRY_S
    assert "p256" in await source.key_set("p256")


async def test_nobody_listening_is_an_unavailable_issuer(http: httpx.AsyncClient, clock: Clock) -> None:
    async with fake_issuer() as gone:
        pass
    source = source_at(gone, http, clock)
    with pytest.raises(IssuerUnavailable, match="cannot be reached"):
        await source.key_set("p256")
    assert not await source.issuer_reachable()


async def test_reachability_is_asked_anew_after_ten_seconds(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock
) -> None:
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    assert await source.issuer_reachable()
    await issuer.become(Mood.SERVER_ERROR)
    assert await source.issuer_reachable()
    assert issuer.hits[JWKS_PATH] == 1
    clock.seconds += REACHABLE_FOR_S
    assert not await source.issuer_reachable()
    await issuer.become(Mood.WELL)
    clock.seconds += REACHABLE_FOR_S
    assert await source.issuer_reachable()
    assert issuer.hits[JWKS_PATH] == 3


async def test_the_running_source_fetches_before_it_is_ready_and_again_by_itself(
    issuer: FakeIssuer, http: httpx.AsyncClient
) -> None:
    issuer.publish(jwk("p256"))
    source = JwksUrl(issuer.jwks_url, http, refresh_s=0.02)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run)
            assert issuer.hits[JWKS_PATH] >= 1
            issuer.publish(jwk("ed"))
            await issuer.wait_for_hits(JWKS_PATH, issuer.hits[JWKS_PATH] + 3)
            nursery.cancel_scope.cancel()
    assert "p256" not in await source.key_set(None)
    assert "ed" in await source.key_set(None)


async def test_the_running_source_survives_an_issuer_that_is_away_at_the_start(
    issuer: FakeIssuer, http: httpx.AsyncClient
) -> None:
    await issuer.become(Mood.HANGING_UP)
    issuer.publish(jwk("p256"))
    source = JwksUrl(issuer.jwks_url, http, refresh_s=0.02)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            await nursery.start(source.run)
            with pytest.raises(IssuerUnavailable):
                await source.key_set("p256")
            await issuer.become(Mood.WELL)
            await issuer.wait_for_hits(JWKS_PATH, issuer.hits[JWKS_PATH] + 2)
            nursery.cancel_scope.cancel()
    assert "p256" in await source.key_set("p256")


async def test_an_outage_is_logged_once_and_its_end_once(
    issuer: FakeIssuer, http: httpx.AsyncClient, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="skygw")
    issuer.publish(jwk("p256"))
    source = source_at(issuer, http, clock)
    for mood in (Mood.WELL, Mood.SERVER_ERROR, Mood.SERVER_ERROR, Mood.SERVER_ERROR, Mood.WELL, Mood.WELL):
        await issuer.become(mood)
        clock.seconds += REACHABLE_FOR_S
        await source.issuer_reachable()
    said = [record.getMessage() for record in caplog.records if record.name.startswith("skygw")]
    assert len(said) == 2
    assert "answered 500" in said[0]
    assert "answers again" in said[1]


@pytest.mark.parametrize(
    "url",
    [
        "http://auth.example.test/jwks",
        "http://10.0.0.1/jwks",
        "ftp://localhost/jwks",
        "file:///etc/passwd",
        "localhost/jwks",
        "https://",
        "",
        "http://localhost.example.test/jwks",
        "https://me:secret@auth.example.test/jwks",
    ],
)
async def test_an_address_that_is_not_safe_to_ask_stops_the_start(http: httpx.AsyncClient, url: str) -> None:
    with pytest.raises(StartupError) as refused:
        JwksUrl(url, http)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("url", ["https://auth.example.test/jwks", "http://localhost:1/jwks", "http://[::1]:1/jwks"])
def test_https_and_loopback_addresses_are_fine(url: str) -> None:
    assert str(issuer_address(url, what="the key set")) == url


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("p256")))
    source = JwksFile(path)
    assert "p256" in await source.key_set("p256")
    path.write_bytes(jwks(jwk("p256"), jwk("ed")))
    assert "ed" in await source.key_set("ed")
    assert await source.issuer_reachable()


async def test_a_file_replaced_by_one_of_the_same_size_and_date_is_noticed(tmp_path: Path) -> None:
    path, new = tmp_path / "jwks.json", tmp_path / "new.json"
    path.write_bytes(jwks(jwk("p256", kid="a")))
    source = JwksFile(path)
    new.write_bytes(jwks(jwk("p256", kid="b")))
    os.utime(new, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    new.rename(path)
    assert "b" in await source.key_set("b")


async def test_a_file_that_turns_bad_or_vanishes_keeps_its_last_keys_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("p256")))
    source = JwksFile(path)
    path.write_bytes(b"half a key s")
    for _ in range(3):
        assert "p256" in await source.key_set("p256")
    assert len(caplog.records) == 1
    path.unlink()
    for _ in range(3):
        assert "p256" in await source.key_set("p256")
    assert len(caplog.records) == 2
    path.write_bytes(jwks(jwk("ed")))
    assert "p256" not in await source.key_set("ed")


async def test_a_disk_that_hangs_holds_nobody_and_the_last_keys_stay(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_sources, "LOOK_TIMEOUT_S", 0.05)
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("p256")))
    source = JwksFile(path)
    path.unlink()
    os.mkfifo(path)  # whoever opens it waits for a writer
    with trio.fail_after(PATIENCE_S):
        for _ in range(3):
            assert "p256" in await source.key_set("p256")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    os.close(os.open(path, os.O_WRONLY))
    path.unlink()
    path.write_bytes(jwks(jwk("ed")))
    with trio.fail_after(PATIENCE_S):
        while "ed" not in await source.key_set("ed"):
            pass


@pytest.mark.parametrize("content", [None, b"", b"{}", jwks(private_jwk("p256")), b" " * 200_000])
def test_a_file_that_holds_no_keys_stops_the_start(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "jwks.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match=str(path)):
        JwksFile(path)


async def test_fixed_keys_are_what_they_are() -> None:
    source = FixedKeys(parse_jwks(jwks(jwk("p256"))))
    assert "p256" in await source.key_set("something else")
    assert await source.issuer_reachable()
