"""A token that was verified is not verified again, and is not believed a moment longer for that."""

from uuid import UUID, uuid4

import pytest
import trio

from skygw.auth import verified_tokens
from skygw.auth.authenticator import LEEWAY_S, Authenticator
from skygw.auth.keys import KeySet, VerificationKey, parse_jwks
from skygw.auth.verified_tokens import VerifiedTokens
from skygw.errors import Unauthenticated
from tests.auth.conftest import Clock
from tests.auth.signing import AUDIENCE, INSTALL_ID, ISSUER, NOW, claims, jwk, jwks, sign

INTERNAL = "sky-node-gateway-internal"


class CountedKeys(KeySet):
    """Says how often a signature was to be verified."""

    asked = 0

    def candidates(self, kid: str | None, algorithm: str) -> list[VerificationKey]:
        self.asked += 1
        return super().candidates(kid, algorithm)


class Keys:
    """A `KeySource` whose set a test exchanges."""

    def __init__(self) -> None:
        self.now = self.fresh()

    @staticmethod
    def fresh(name: str = "p256") -> CountedKeys:
        return CountedKeys(parse_jwks(jwks(jwk(name)))._keys)

    async def key_set(self, kid: str | None) -> KeySet:
        await trio.lowlevel.checkpoint()
        return self.now

    async def issuer_reachable(self) -> bool:
        await trio.lowlevel.checkpoint()
        return True


def authenticator(keys: Keys, clock: Clock, *, uid_claim: str = "sub") -> Authenticator:
    clock.seconds = NOW
    return Authenticator(
        issuer=ISSUER,
        node_audiences=[AUDIENCE],
        service_audiences=[INTERNAL],
        keys=keys,
        uid_claim=uid_claim,
        now=clock,
    )


async def test_a_token_that_comes_again_is_not_verified_again(clock: Clock) -> None:
    keys = Keys()
    auth, token = authenticator(keys, clock), sign(claims())
    first = await auth.node(token)
    assert await auth.node(token) == first
    assert first.install_id == UUID(INSTALL_ID)
    assert keys.now.asked == 1


async def test_the_configured_claim_is_remembered_with_the_token(clock: Clock) -> None:
    auth = authenticator(Keys(), clock, uid_claim="installation")
    uid = uuid4()
    token = sign(claims(installation=str(uid)))
    assert [(await auth.node(token)).install_id for _ in range(2)] == [uid, uid]


async def test_a_known_token_expires_all_the_same(clock: Clock) -> None:
    auth, token = authenticator(Keys(), clock), sign(claims(exp=NOW + 60))
    await auth.node(token)
    clock.seconds = NOW + 60 + LEEWAY_S
    with pytest.raises(Unauthenticated, match="expired"):
        await auth.node(token)


async def test_a_known_token_is_not_yet_valid_when_the_clock_was_set_back(clock: Clock) -> None:
    auth, token = authenticator(Keys(), clock), sign(claims(nbf=NOW))
    await auth.node(token)
    clock.seconds = NOW - 3_600
    with pytest.raises(Unauthenticated, match="not valid yet"):
        await auth.node(token)


async def test_a_known_token_is_refused_as_soon_as_its_key_is_withdrawn(clock: Clock) -> None:
    keys = Keys()
    auth, token = authenticator(keys, clock), sign(claims())
    await auth.node(token)
    keys.now = keys.fresh("other")
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="key that is not known"):
            await auth.node(token)


async def test_a_known_token_is_verified_anew_when_the_keys_were_read_anew(clock: Clock) -> None:
    keys = Keys()
    auth, token = authenticator(keys, clock), sign(claims())
    await auth.node(token)
    keys.now = keys.fresh()
    await auth.node(token)
    await auth.node(token)
    assert keys.now.asked == 1


async def test_a_known_token_with_another_signature_is_unknown(clock: Clock) -> None:
    auth, token = authenticator(Keys(), clock), sign(claims())
    await auth.node(token)
    head, body, _ = token.split(".")
    signature = sign(claims(jti="another")).rsplit(".", 1)[1]
    with pytest.raises(Unauthenticated, match="signature"):
        await auth.node(f"{head}.{body}.{signature}")


async def test_a_token_known_at_one_door_does_not_open_the_other(clock: Clock) -> None:
    auth, token = authenticator(Keys(), clock), sign(claims())
    await auth.node(token)
    with pytest.raises(Unauthenticated, match="not meant for"):
        await auth.service(token)


async def test_a_token_that_was_refused_is_not_known(clock: Clock) -> None:
    keys = Keys()
    auth, token = authenticator(keys, clock), sign(claims(iss="somebody else"))
    for _ in range(2):
        with pytest.raises(Unauthenticated, match="issuer"):
            await auth.node(token)
    assert keys.now.asked == 2


async def test_the_one_not_seen_for_longest_is_forgotten(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified_tokens, "MAX_REMEMBERED", 2)
    keys = Keys()
    auth = authenticator(keys, clock)
    first, second, third = (sign(claims(jti=jti)) for jti in ("1", "2", "3"))
    for token in (first, second, first, third):
        await auth.node(token)
    assert keys.now.asked == 3
    await auth.node(first)
    assert keys.now.asked == 3
    await auth.node(second)
    assert keys.now.asked == 4


async def test_no_token_is_kept(clock: Clock) -> None:
    auth, token = authenticator(Keys(), clock), sign(claims(secret="a claim of no concern"))
    await auth.node(token)
    for known in auth._seen.values():
        assert isinstance(known, VerifiedTokens)
        kept = repr([(digest, seen.claims.values) for digest, seen in known._known.items()])
        assert token not in kept
        assert "concern" not in kept
