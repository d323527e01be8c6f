"""Each kind of token finds its way to whoever can verify it, and its bearer gets what it says and no more."""

import logging
from uuid import UUID

import httpx
import pytest

from skygw.auth.authenticator import Authenticator
from skygw.auth.introspection import Introspection
from skygw.auth.issuer_http import IssuerUnavailable
from skygw.auth.key_sources import FixedKeys, JwksUrl
from skygw.auth.keys import parse_jwks
from skygw.auth.tokens import MAX_TOKEN_BYTES
from skygw.errors import Forbidden, GatewayError, Unauthenticated
from skygw.ids import InstallId
from tests.auth.signing import AUDIENCE, INSTALL_ID, ISSUER, NOW, claims, jwk, jwks, sign
from tests.fakes.issuer import INTROSPECTION_PATH, JWKS_PATH, FakeIssuer, Mood

INTERNAL = "sky-node-gateway-internal"


class Installations:
    """The platform's records, of one installation."""

    async def by_client_id(self, client_id: str) -> InstallId | None:
        return InstallId(UUID(INSTALL_ID)) if client_id == "skynode-7" else None


def authenticator(
    *,
    keys: FixedKeys | JwksUrl | None = None,
    introspection: Introspection | None = None,
    installations: Installations | None = None,
) -> Authenticator:
    if keys is None and introspection is None:
        keys = FixedKeys(parse_jwks(jwks(jwk("p256"))))
    return Authenticator(
        issuer=ISSUER,
        node_audiences=[AUDIENCE],
        service_audiences=[INTERNAL],
        keys=keys,
        introspection=introspection,
        installations=installations,
        now=lambda: NOW,
    )


def asking(issuer: FakeIssuer, http: httpx.AsyncClient) -> Introspection:
    return Introspection(issuer.introspection_url, http, client_id="gateway", client_secret="s3cret")


async def test_a_node_token_opens_the_node_door_only() -> None:
    auth = authenticator()
    assert (await auth.node(sign(claims()))).install_id == UUID(INSTALL_ID)
    with pytest.raises(Unauthenticated, match="not meant for sky-node-gateway-internal"):
        await auth.service(sign(claims()))


async def test_a_service_token_opens_the_internal_door_only() -> None:
    auth = authenticator()
    token = sign(claims(aud=INTERNAL, sub="scheduler", scope="nodes:read node"))
    assert (await auth.service(token)).service == "scheduler"
    with pytest.raises(Unauthenticated, match="not meant for sky-node-gateway"):
        await auth.node(token)


async def test_an_installation_can_be_found_by_its_client_id() -> None:
    auth = authenticator(installations=Installations())
    principal = await auth.node(sign(claims(sub="whatever")))
    assert principal.install_id == UUID(INSTALL_ID)
    assert principal.client_id == "skynode-7"


async def test_a_client_id_of_no_installation_is_forbidden() -> None:
    with pytest.raises(Forbidden, match="belongs to no installation"):
        await authenticator(installations=Installations()).node(sign(claims(client_id="skynode-8")))
    with pytest.raises(Forbidden, match="names no client"):
        await authenticator(installations=Installations()).node(sign(claims(client_id=None)))


async def test_the_look_up_by_client_id_wants_the_scope_first() -> None:
    with pytest.raises(Forbidden, match="“node”"):
        await authenticator(installations=Installations()).node(sign(claims(scope="other")))


async def test_an_opaque_token_without_introspection_is_refused() -> None:
    with pytest.raises(Unauthenticated, match="not a signed JWT"):
        await authenticator().node("2YotnFZFEjr1zCsicMWpAA")


async def test_an_opaque_token_is_asked_about(issuer: FakeIssuer, http: httpx.AsyncClient) -> None:
    issuer.introspected["opaque"] = claims()
    auth = authenticator(introspection=asking(issuer, http))
    assert (await auth.node("opaque")).install_id == UUID(INSTALL_ID)


async def test_the_issuer_may_leave_itself_out_of_an_introspection(issuer: FakeIssuer, http: httpx.AsyncClient) -> None:
    issuer.introspected["opaque"] = claims(iss=None)
    assert (await authenticator(introspection=asking(issuer, http)).node("opaque")).expires_at == NOW + 600


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "https://evil.example.test"},
        {"aud": None},
        {"aud": INTERNAL},
        {"exp": None},
        {"exp": NOW - 60},
    ],
)
async def test_an_active_token_must_be_meant_for_this_gateway_all_the_same(
    issuer: FakeIssuer, http: httpx.AsyncClient, changed: dict[str, object]
) -> None:
    issuer.introspected["opaque"] = claims(**changed)
    with pytest.raises(Unauthenticated):
        await authenticator(introspection=asking(issuer, http)).node("opaque")


async def test_jwts_are_verified_here_if_there_are_keys_and_asked_about_if_not(
    issuer: FakeIssuer, http: httpx.AsyncClient
) -> None:
    token = sign(claims())
    issuer.introspected[token] = claims()
    keys = FixedKeys(parse_jwks(jwks(jwk("p256"))))
    await authenticator(keys=keys, introspection=asking(issuer, http)).node(token)
    assert issuer.hits[INTROSPECTION_PATH] == 0
    await authenticator(introspection=asking(issuer, http)).node(token)
    assert issuer.hits[INTROSPECTION_PATH] == 1


async def test_a_token_that_fails_here_gets_no_second_chance_by_introspection(
    issuer: FakeIssuer, http: httpx.AsyncClient
) -> None:
    forged = sign(claims(), key="p256-stranger")
    issuer.introspected[forged] = claims()
    keys = FixedKeys(parse_jwks(jwks(jwk("p256"))))
    with pytest.raises(Unauthenticated):
        await authenticator(keys=keys, introspection=asking(issuer, http)).node(forged)


@pytest.mark.parametrize("token", ["x" * (MAX_TOKEN_BYTES + 1), "opaqué", "\ud800"])
async def test_oversize_and_odd_tokens_never_reach_the_issuer(
    issuer: FakeIssuer, http: httpx.AsyncClient, token: str
) -> None:
    with pytest.raises(Unauthenticated):
        await authenticator(introspection=asking(issuer, http)).node(token)
    assert issuer.hits[INTROSPECTION_PATH] == 0


async def test_a_token_of_a_rotated_key_is_taken_at_once(issuer: FakeIssuer, http: httpx.AsyncClient) -> None:
    issuer.publish(jwk("p256"))
    auth = authenticator(keys=JwksUrl(issuer.jwks_url, http))
    await auth.node(sign(claims()))
    issuer.publish(jwk("p256-next"))
    await auth.node(sign(claims(), key="p256-next", kid="p256-next"))
    assert issuer.hits[JWKS_PATH] == 2
    with pytest.raises(Unauthenticated, match="not known here"):
        await auth.node(sign(claims()))


async def test_garbage_never_makes_the_gateway_ask_for_keys(issuer: FakeIssuer, http: httpx.AsyncClient) -> None:
    auth = authenticator(keys=JwksUrl(issuer.jwks_url, http))
    for garbage in ("", "a.b.c", "..", "x" * 9000, "opaque"):
        with pytest.raises(Unauthenticated):
            await auth.node(garbage)
    assert issuer.hits[JWKS_PATH] == 0


async def test_an_issuer_that_is_away_gives_grace(issuer: FakeIssuer, http: httpx.AsyncClient) -> None:
    issuer.publish(jwk("p256"))
    keys = JwksUrl(issuer.jwks_url, http)
    assert await authenticator(keys=keys, introspection=asking(issuer, http)).issuer_reachable()
    await issuer.become(Mood.SERVER_ERROR)
    assert not await authenticator(keys=JwksUrl(issuer.jwks_url, http)).issuer_reachable()
    assert not await authenticator(introspection=asking(issuer, http)).issuer_reachable()
    assert await authenticator().issuer_reachable()


async def test_an_issuer_that_never_answered_is_neither_yes_nor_no(issuer: FakeIssuer, http: httpx.AsyncClient) -> None:
    await issuer.become(Mood.HANGING_UP)
    with pytest.raises(IssuerUnavailable):
        await authenticator(keys=JwksUrl(issuer.jwks_url, http)).node(sign(claims()))


def test_a_gateway_that_can_verify_nothing_is_not_built() -> None:
    with pytest.raises(ValueError, match="keys or introspection"):
        Authenticator(issuer=ISSUER, node_audiences=[], service_audiences=[], keys=None)


@pytest.mark.parametrize(
    "token",
    [
        sign(claims(), key="p256-stranger"),
        sign(claims(exp=1)),
        sign(claims(aud="telltale-audience")),
        sign(claims(iss="telltale-issuer")),
        sign(claims(sub="telltale-subject")),
        sign(claims(scope="telltale-scope")),
        sign(claims(), kid="telltale-kid"),
        sign(b'{"telltale": NaN}'),
    ],
)
async def test_no_part_of_a_token_is_in_an_error_its_causes_or_a_log(
    token: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(GatewayError) as refused:
        await authenticator().node(token)
    error: BaseException | None = refused.value
    said = caplog.text + repr(refused.value.details)
    while error is not None:
        said += str(error)
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    assert "telltale" not in said
    for segment in token.split("."):
        assert segment not in said
