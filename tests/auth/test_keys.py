"""Which published keys are taken, and what a key set may not do to the gateway."""

import json
from typing import Any

import pytest

from skygw.auth.keys import MAX_JWKS_BYTES, MAX_KEYS, KeySetError, parse_jwks
from skygw.auth.tokens import verify
from skygw.errors import Unauthenticated
from tests.auth.signing import AUDIENCE, INSTALL_ID, ISSUER, NOW, claims, jwk, jwks, private_jwk, sign


@pytest.mark.parametrize("name", ["p256", "p384", "rsa", "ed"])
def test_public_signature_keys_are_taken(name: str) -> None:
    assert name in parse_jwks(jwks(jwk(name)))
    assert name in parse_jwks(jwks(jwk(name, use="sig", key_ops=["verify"])))


def test_symmetric_keys_are_never_taken() -> None:
    symmetric = {"kid": "oct", "kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQ", "alg": "HS256"}
    assert "oct" not in parse_jwks(jwks(symmetric, jwk("p256")))
    with pytest.raises(KeySetError, match="a key is symmetric") as refused:
        parse_jwks(jwks(symmetric))
    assert "c2VjcmV0" not in str(refused.value)


@pytest.mark.parametrize("name", ["p256", "rsa", "ed"])
def test_a_key_that_publishes_its_private_half_is_not_taken(name: str) -> None:
    published = private_jwk(name)
    assert name not in parse_jwks(jwks(published, jwk("p384")))
    with pytest.raises(KeySetError, match="private half") as refused:
        parse_jwks(jwks(published))
    assert published["d"] not in str(refused.value)


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"use": None, "key_ops": ["sign"]},
        {"key_ops": "verify"},
        {"alg": "HS256"},
        {"alg": "none"},
        {"alg": "RSA-OAEP"},
        {"alg": "ES384"},
        {"alg": 5},
        {"kid": ""},
        {"kid": 5},
        {"kid": "k" * 257},
        {"kty": "DSA"},
        {"kty": None},
        {"kty": ["EC"]},
        {"crv": "secp256k1"},
        {"crv": "P-521"},
        {"crv": ["P-256"]},
        {"x": None},
        {"x": 5},
        {"x": "AAAA"},
        {"x": "A" * 43},
        {"x": "é" * 43},
        {"x": "A" * 10_000},
    ],
)
def test_a_key_for_something_else_or_malformed_is_passed_over(members: dict[str, Any]) -> None:
    other = jwk("p256", **members)
    with pytest.raises(KeySetError, match="no key that can verify"):
        parse_jwks(jwks(other))
    assert len(parse_jwks(jwks(other, jwk("ed")))) == 1


def test_rsa_keys_too_short_to_be_safe_or_too_long_to_be_fast_are_passed_over() -> None:
    with pytest.raises(KeySetError, match="2048 to 8192 bits"):
        parse_jwks(jwks(jwk("rsa1024")))
    with pytest.raises(KeySetError, match=r"malformed|2048 to 8192 bits"):
        parse_jwks(jwks(jwk("rsa", n="_" * 1371)))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [5, null, "a", []]}',
        b'{"keys": [], "keys": []}',
        b"\xff",
        b"[" * 50_000,
    ],
)
def test_a_document_that_is_no_key_set_is_refused(document: bytes) -> None:
    with pytest.raises(KeySetError):
        parse_jwks(document)


def test_a_key_set_with_too_many_keys_or_bytes_is_refused() -> None:
    assert len(parse_jwks(jwks(*[jwk("p256", kid=str(n)) for n in range(MAX_KEYS)]))) == MAX_KEYS
    with pytest.raises(KeySetError, match="more than 64 keys"):
        parse_jwks(jwks(*[jwk("p256", kid=str(n)) for n in range(MAX_KEYS + 1)]))
    with pytest.raises(KeySetError, match="larger than"):
        parse_jwks(jwks(jwk("p256")) + b" " * MAX_JWKS_BYTES)


def test_two_keys_under_one_id_are_ambiguous_and_the_others_still_work() -> None:
    keys = parse_jwks(jwks(jwk("p256", kid="twice"), jwk("p256-other", kid="twice"), jwk("ed")))
    good = sign(claims(), key="ed", kid="ed", algorithm="EdDSA")
    found = verify(good, keys=keys, audiences=[AUDIENCE], issuer=ISSUER, now=NOW, leeway_s=0)
    assert found.subject == INSTALL_ID
    with pytest.raises(Unauthenticated, match="which of several keys"):
        verify(sign(claims(), kid="twice"), keys=keys, audiences=[AUDIENCE], issuer=ISSUER, now=NOW, leeway_s=0)


def test_the_same_key_listed_twice_is_one_key() -> None:
    keys = parse_jwks(jwks(jwk("p256"), jwk("p256")))
    assert len(keys) == 1


def test_two_keys_of_different_types_under_one_id_are_told_apart_by_the_algorithm() -> None:
    keys = parse_jwks(jwks(jwk("p256", kid="one"), jwk("rsa", kid="one")))
    for key, algorithm in (("p256", "ES256"), ("rsa", "PS256")):
        token = sign(claims(), key=key, kid="one", algorithm=algorithm)
        found = verify(token, keys=keys, audiences=[AUDIENCE], issuer=ISSUER, now=NOW, leeway_s=0)
        assert found.subject == INSTALL_ID


def test_members_nobody_asked_for_change_nothing() -> None:
    entry = jwk("p256", x5u="https://evil.example.test", x5c=["AAAA"], ext=True, n="AQAB")
    assert "p256" in parse_jwks(json.dumps({"keys": [entry], "more": {"keys": []}}).encode())
