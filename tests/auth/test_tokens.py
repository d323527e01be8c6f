"""What a token must be to be believed, and every way we know in which one tries to be believed without."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from skygw.auth.claims import Claims, node_principal, service_principal
from skygw.auth.keys import KeySet, parse_jwks
from skygw.auth.tokens import MAX_TOKEN_BYTES, bearer_token, is_jwt_shaped, verify
from skygw.errors import Forbidden, Unauthenticated
from tests.auth.signing import (
    AUDIENCE,
    INSTALL_ID,
    ISSUER,
    NOW,
    claims,
    encode,
    jwk,
    jwks,
    private_key,
    sign,
    unsigned,
)


@pytest.fixture(scope="module")
def keys() -> KeySet:
    return parse_jwks(jwks(jwk("p256"), jwk("rsa"), jwk("ed"), jwk("p384")))


def verified(token: str, keys: KeySet, *, now: float = NOW, audiences: tuple[str, ...] = (AUDIENCE,)) -> Claims:
    return verify(token, keys=keys, audiences=audiences, issuer=ISSUER, now=now, leeway_s=5)


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [("p256", "ES256"), ("p384", "ES384"), ("rsa", "RS256"), ("rsa", "PS512"), ("ed", "EdDSA")],
)
def test_a_token_signed_with_a_published_key_is_believed(keys: KeySet, key: str, algorithm: str) -> None:
    token = sign(claims(), key=key, kid=key, algorithm=algorithm)
    assert verified(token, keys).subject == INSTALL_ID


@pytest.mark.parametrize("typ", ["JWT", "jwt", "at+jwt", "application/at+jwt"])
def test_access_token_types_are_taken(keys: KeySet, typ: str) -> None:
    assert verified(sign(claims(), typ=typ), keys).subject == INSTALL_ID


def test_a_token_without_a_type_is_taken(keys: KeySet) -> None:
    assert verified(sign(claims(), typ=None), keys).subject == INSTALL_ID


@pytest.mark.parametrize("typ", ["dpop+jwt", "logout+jwt", "id_token", 7, ["JWT"]])
def test_other_kinds_of_jwt_are_refused(keys: KeySet, typ: Any) -> None:
    token = unsigned({"alg": "ES256", "kid": "p256", "typ": typ}, claims(), b"x" * 64)
    with pytest.raises(Unauthenticated, match="not an access token"):
        verified(token, keys)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "", "HS256", "ES256K", "ES521", None, 5, ["ES256"]])
def test_an_algorithm_off_the_list_is_refused(keys: KeySet, algorithm: Any) -> None:
    for signature in (b"", b"x" * 64):
        with pytest.raises(Unauthenticated, match=r"accepted algorithm|not a signed JWT"):
            verified(unsigned({"alg": algorithm, "kid": "p256"}, claims(), signature), keys)


def test_a_token_signed_symmetrically_with_the_public_key_is_refused(keys: KeySet) -> None:
    public = private_key("rsa").public_key()
    for secret in (
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk("rsa")).encode(),
    ):
        head = encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "rsa"}).encode())
        signing_input = f"{head}.{encode(json.dumps(claims()).encode())}"
        signature = hmac.new(secret, signing_input.encode(), hashlib.sha256).digest()
        with pytest.raises(Unauthenticated, match="accepted algorithm"):
            verified(f"{signing_input}.{encode(signature)}", keys)


def test_a_key_is_used_only_with_the_algorithms_of_its_own_type(keys: KeySet) -> None:
    with pytest.raises(Unauthenticated, match="not known here"):
        verified(sign(claims(), key="rsa", algorithm="RS256", kid="p256"), keys)


def test_a_key_published_for_one_algorithm_verifies_no_other() -> None:
    narrow = parse_jwks(jwks(jwk("rsa", alg="RS256")))
    assert verified(sign(claims(), key="rsa", kid="rsa", algorithm="RS256"), narrow).subject == INSTALL_ID
    with pytest.raises(Unauthenticated, match="not known here"):
        verified(sign(claims(), key="rsa", kid="rsa", algorithm="PS256"), narrow)


def test_a_token_signed_by_another_key_under_a_known_id_is_refused(keys: KeySet) -> None:
    with pytest.raises(Unauthenticated, match="signature does not hold"):
        verified(sign(claims(), key="p256-stranger", kid="p256"), keys)


def test_claims_changed_after_signing_are_refused(keys: KeySet) -> None:
    head, _, signature = sign(claims()).split(".")
    forged = encode(json.dumps(claims(sub="00000000-0000-4000-8000-000000000000")).encode())
    with pytest.raises(Unauthenticated, match="signature does not hold"):
        verified(f"{head}.{forged}.{signature}", keys)


def test_a_key_brought_along_in_the_header_is_not_used(keys: KeySet) -> None:
    token = sign(
        claims(),
        key="p256-stranger",
        kid="p256",
        jwk=jwk("p256-stranger"),
        jku="https://evil.example.test/jwks",
        x5u="https://evil.example.test/cert",
        x5c=["AAAA"],
    )
    with pytest.raises(Unauthenticated, match="signature does not hold"):
        verified(token, keys)


def test_key_locations_in_the_header_of_a_good_token_do_no_harm(keys: KeySet) -> None:
    token = sign(claims(), jku="https://evil.example.test/jwks", jwk=jwk("p256-stranger"))
    assert verified(token, keys).subject == INSTALL_ID


@pytest.mark.parametrize("crit", [["b64"], ["exp"], [], "exp", None])
def test_a_critical_extension_is_refused(keys: KeySet, crit: Any) -> None:
    token = unsigned({"alg": "ES256", "kid": "p256", "crit": crit, "b64": True}, claims(), b"x" * 64)
    with pytest.raises(Unauthenticated, match="extension"):
        verified(token, keys)


@pytest.mark.parametrize("kid", ["../../etc/passwd", "p256\0", "' OR 1=1 --", "P256", " p256"])
def test_a_key_id_is_compared_and_nothing_else(keys: KeySet, kid: str) -> None:
    with pytest.raises(Unauthenticated, match=r"not known here|cannot be read"):
        verified(sign(claims(), kid=kid), keys)


@pytest.mark.parametrize("kid", ["k" * 257, "", 5, ["p256"], {"a": 1}])
def test_a_key_id_that_is_no_short_text_is_refused(keys: KeySet, kid: Any) -> None:
    with pytest.raises(Unauthenticated, match="key id"):
        verified(unsigned({"alg": "ES256", "kid": kid}, claims(), b"x" * 64), keys)


def test_a_token_without_a_key_id_is_taken_if_only_one_key_fits(keys: KeySet) -> None:
    assert verified(sign(claims(), kid=None), keys).subject == INSTALL_ID


def test_a_token_without_a_key_id_is_refused_if_several_keys_fit() -> None:
    several = parse_jwks(jwks(jwk("p256"), jwk("p256-other")))
    with pytest.raises(Unauthenticated, match="which of several keys"):
        verified(sign(claims(), kid=None), several)


def test_a_token_as_long_as_the_limit_is_read_and_a_longer_one_is_not(keys: KeySet) -> None:
    # The size comes first: what is behind it is not even decoded, so it may be anything.
    with pytest.raises(Unauthenticated, match="not a signed JWT"):
        verified("x" * MAX_TOKEN_BYTES, keys)
    with pytest.raises(Unauthenticated, match="larger than 8192 bytes"):
        verified("\u2603" * (MAX_TOKEN_BYTES + 1), keys)


@pytest.mark.parametrize("token", ["", ".", "..", "...", "a.b", "a.b.", ".b.c", "a..c", "a.b.c.d", "a.b.c.d.e"])
def test_missing_or_empty_segments_are_refused(keys: KeySet, token: str) -> None:
    with pytest.raises(Unauthenticated, match="not a signed JWT"):
        verified(token, keys)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"[]",
        b"null",
        b'{"alg":"ES256","alg":"none"}',
        b'{"alg":"ES256","kid":"\\ud800"}',
        b'{"alg":"ES256","x":NaN}',
        b'{"alg":"ES256","x":1e999}',
        b"[" * 5000,
        b'{"alg":"ES256"',
        b"\xff\xfe",
    ],
)
def test_a_header_two_readers_could_read_differently_is_refused(keys: KeySet, head: bytes) -> None:
    with pytest.raises(Unauthenticated, match=r"header cannot be read|not a signed JWT"):
        verified(unsigned(head, claims(), b"x" * 64), keys)


def test_non_ascii_and_foreign_characters_are_refused(keys: KeySet) -> None:
    token = sign(claims())
    for broken in (token + "é", "é" + token, token.replace("e", "е", 1)):  # the last е is Cyrillic
        with pytest.raises(Unauthenticated, match="characters that no token has"):
            verified(broken, keys)
    for broken in (token[:4] + "!" + token[4:], "\n" + token, token.replace(".", "=.", 1)):
        with pytest.raises(Unauthenticated, match="cannot be read"):
            verified(broken, keys)


@pytest.mark.parametrize("issuer", [None, "", "https://evil.example.test", ISSUER + "/", [ISSUER], 5])
def test_another_issuer_is_refused(keys: KeySet, issuer: Any) -> None:
    with pytest.raises(Unauthenticated, match="not from the issuer"):
        verified(sign(claims(iss=issuer)), keys)


@pytest.mark.parametrize("audience", [None, "", [], "sky-node", "sky-node-gateway-internal", [5], {"a": 1}, 5])
def test_another_audience_is_refused(keys: KeySet, audience: Any) -> None:
    with pytest.raises(Unauthenticated, match=r"audience|not meant for"):
        verified(sign(claims(aud=audience)), keys)


def test_one_of_several_audiences_on_either_side_is_enough(keys: KeySet) -> None:
    token = sign(claims(aud=["something", "else", AUDIENCE]))
    assert verified(token, keys, audiences=("other", AUDIENCE)).subject == INSTALL_ID


def test_a_token_holds_until_its_expiry_plus_the_leeway(keys: KeySet) -> None:
    token = sign(claims(exp=int(NOW)))
    assert verified(token, keys, now=NOW + 4.9).expires_at == NOW
    with pytest.raises(Unauthenticated, match="has expired"):
        verified(token, keys, now=NOW + 5)


def test_a_token_holds_from_its_not_before_less_the_leeway(keys: KeySet) -> None:
    token = sign(claims(nbf=NOW + 100))
    assert verified(token, keys, now=NOW + 95).expires_at == NOW + 600
    with pytest.raises(Unauthenticated, match="not valid yet"):
        verified(token, keys, now=NOW + 94.9)


def test_a_token_without_an_expiry_is_refused(keys: KeySet) -> None:
    with pytest.raises(Unauthenticated, match="no expiry"):
        verified(sign(claims(exp=None)), keys)


@pytest.mark.parametrize("claim", ["exp", "nbf"])
@pytest.mark.parametrize(
    "value",
    [
        '"1800000600"',
        "true",
        "null",
        "[]",
        "-1",
        "1800000600000",
        "1e300",
        "1e999",
        "NaN",
        "Infinity",
        "9" * 60,
        "9" * 5000,
    ],
)
def test_a_time_that_is_none_is_refused(keys: KeySet, claim: str, value: str) -> None:
    rest = json.dumps(claims(**{claim: None}))[:-1]
    with pytest.raises(Unauthenticated, match=r"not a time|cannot be read"):
        verified(sign(f'{rest}, "{claim}": {value}}}'.encode()), keys)


@pytest.mark.parametrize("payload", [b"", b"[]", b'"text"', b'{"iss": "a", "iss": "b"}', b'{"sub": "\\u0000"}'])
def test_a_payload_that_is_no_sane_object_is_refused(keys: KeySet, payload: bytes) -> None:
    with pytest.raises(Unauthenticated, match=r"cannot be read|not a signed JWT"):
        verified(sign(payload), keys)


@pytest.mark.parametrize(
    ("scope", "granted"),
    [
        ("node", {"node"}),
        ("node nodes:read", {"node", "nodes:read"}),
        (" node  nodes:read ", {"node", "nodes:read"}),
        (["node", "nodes:read"], {"node", "nodes:read"}),
        ([], set()),
        ("", set()),
        (None, set()),
    ],
)
def test_scopes_come_as_a_text_or_as_a_list(keys: KeySet, scope: Any, granted: set[str]) -> None:
    assert verified(sign(claims(scope=scope)), keys).scopes == granted


@pytest.mark.parametrize("scope", [5, True, {"node": True}, ["node", 5], [["node"]]])
def test_scopes_of_another_shape_are_refused(keys: KeySet, scope: Any) -> None:
    with pytest.raises(Unauthenticated, match="“scope”"):
        verified(sign(claims(scope=scope)), keys)


@pytest.mark.parametrize("subject", ["", "s" * 256, 5, ["a"], "a\nb", "a\x1b[2J"])
def test_a_subject_that_cannot_be_logged_is_refused(keys: KeySet, subject: Any) -> None:
    with pytest.raises(Unauthenticated, match="“sub”"):
        verified(sign(claims(sub=subject)), keys)


def test_a_node_token_names_its_installation(keys: KeySet) -> None:
    principal = node_principal(verified(sign(claims()), keys), uid_claim="sub")
    assert str(principal.install_id) == INSTALL_ID
    assert principal.client_id == "skynode-7"
    assert principal.expires_at == NOW + 600


def test_the_installation_may_stand_in_another_claim(keys: KeySet) -> None:
    token = sign(claims(sub="skynode-7", **{"https://skynet/install": INSTALL_ID}))
    principal = node_principal(verified(token, keys), uid_claim="https://skynet/install")
    assert str(principal.install_id) == INSTALL_ID


@pytest.mark.parametrize("uid", ["7", "not-a-uuid", INSTALL_ID.replace("-", ""), f"{{{INSTALL_ID}}}", None])
def test_a_node_token_without_a_proper_uid_is_forbidden(keys: KeySet, uid: str | None) -> None:
    with pytest.raises(Forbidden, match="“sub” is not a UUID"):
        node_principal(verified(sign(claims(sub=uid)), keys), uid_claim="sub")


@pytest.mark.parametrize("scope", [None, "nodes:read", "nodes", "Node"])
def test_a_token_without_the_node_scope_is_no_node(keys: KeySet, scope: str | None) -> None:
    with pytest.raises(Forbidden, match="“node”"):
        node_principal(verified(sign(claims(scope=scope)), keys), uid_claim="sub")


def test_a_service_is_named_by_the_subject(keys: KeySet) -> None:
    token = sign(claims(sub="scheduler", scope="nodes:read act_as"))
    principal = service_principal(verified(token, keys))
    assert principal.service == "scheduler"
    assert principal.scopes == {"nodes:read", "act_as"}


def test_a_token_without_a_subject_is_no_service(keys: KeySet) -> None:
    with pytest.raises(Unauthenticated, match="no service"):
        service_principal(verified(sign(claims(sub=None)), keys))


def test_the_claims_of_a_token_are_not_printed(keys: KeySet) -> None:
    assert "private detail" not in repr(verified(sign(claims(note="private detail")), keys))


@given(st.text(max_size=200))
def test_no_text_is_anything_but_a_token_or_unauthenticated(text: str) -> None:
    keys = parse_jwks(jwks(jwk("p256")))
    with pytest.raises(Unauthenticated) as refused:
        verified(text, keys)
    assert len(text) < 8 or text not in str(refused.value)


@given(st.dictionaries(st.text(max_size=5), st.none() | st.integers() | st.text(max_size=9) | st.lists(st.text())))
def test_no_signed_claims_raise_anything_but_unauthenticated(values: dict[str, Any]) -> None:
    keys = parse_jwks(jwks(jwk("p256")))
    with pytest.raises(Unauthenticated):
        verified(sign(values), keys)


@pytest.mark.parametrize("header", ["Bearer abc", "bearer abc", "BEARER  abc ", "Bearer abc=="])
def test_a_bearer_header_gives_its_token(header: str) -> None:
    assert bearer_token(header).rstrip("=") == "abc"


@pytest.mark.parametrize("header", [None, "", "  "])
def test_no_header_says_what_to_send(header: str | None) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        bearer_token(header)


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        "Basic abc",
        "abc",
        "Bearer a b",
        "Bearer a,Bearer b",
        "Bearer a\nb",
        "Bearer é",
        "Bearer =",
    ],
)
def test_a_header_of_another_shape_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated, match="not “Bearer <token>”"):
        bearer_token(header)


def test_an_oversize_header_is_refused_before_it_is_matched() -> None:
    assert len(bearer_token("Bearer " + "a" * MAX_TOKEN_BYTES)) == MAX_TOKEN_BYTES
    with pytest.raises(Unauthenticated, match="larger than"):
        bearer_token("Bearer " + "a" * (MAX_TOKEN_BYTES + 1))


def test_opaque_tokens_are_told_from_jwts() -> None:
    assert is_jwt_shaped(sign(claims()))
    assert not is_jwt_shaped("2YotnFZFEjr1zCsicMWpAA")
    assert not is_jwt_shaped("a.b.c.d.e")
