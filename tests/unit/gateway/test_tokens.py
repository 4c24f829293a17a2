"""Tokens: what is signed by the right key, for here and for now, and says nothing strange, is believed; nothing else.

The attacks on a running gateway are data: tests/corpus/attacks. Here is what needs a key that signs anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Final

import jwt
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from gateway.identity import JwtAuthenticator, Principal, Unauthenticated
from gateway.identity.signing_keys import SigningKeys, parse
from gateway.identity.tokens import KeyOf, public_keys, shared_secret
from gateway.sources import SourceUnavailable
from tests.support.access_tokens import (
    AUDIENCE,
    ISSUER,
    SigningKey,
    hs256,
    jwks,
    part,
    valid_claims,
)

RSA: Final = SigningKey("rsa-1")
EC: Final = SigningKey("ec-1", "EC")
STRANGER: Final = SigningKey("rsa-1")
SECRET: Final = "s" * 32
LEEWAY_SECONDS: Final = 10.0


def of_jwks(*keys: Any, algorithms: tuple[str, ...] = ("RS256", "ES256")) -> JwtAuthenticator:
    document = jwks(*keys)
    return _authenticator(
        public_keys(SigningKeys(lambda: parse(document), ttl_seconds=60)), algorithms
    )


def of_secret() -> JwtAuthenticator:
    return _authenticator(shared_secret(SECRET), ("HS256",))


def _authenticator(key_of: KeyOf, algorithms: tuple[str, ...]) -> JwtAuthenticator:
    return JwtAuthenticator(
        key_of,
        algorithms=algorithms,
        issuer=ISSUER,
        audience=AUDIENCE,
        leeway_seconds=LEEWAY_SECONDS,
    )


BOTH: Final = of_jwks(RSA, EC)


def authenticate(token: str, authenticator: JwtAuthenticator = BOTH) -> Principal:
    headers = Headers([("Authorization", f"Bearer {token}")])
    return authenticator.authenticate(headers, "203.0.113.9", time.monotonic() + 20)


def refused(token: str, authenticator: JwtAuthenticator = BOTH) -> str:
    with pytest.raises(Unauthenticated) as caught:
        authenticate(token, authenticator)
    assert token not in f"{caught.value} {caught.value.challenge}"
    return str(caught.value)


# -- what is believed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
def test_the_principal_is_what_the_token_says(key: SigningKey) -> None:
    exp = int(time.time()) + 60
    principal = authenticate(key.token(tenant_id="umbrella", roles=["viewer", "service"], exp=exp))
    assert (principal.tenant_id, principal.roles) == ("umbrella", ("viewer", "service"))
    assert principal.method == "jwt"
    assert principal.expires_at == exp + LEEWAY_SECONDS


def test_a_shared_secret_signs_hs256() -> None:
    token = hs256({"alg": "HS256"}, valid_claims(), SECRET.encode())
    assert authenticate(token, of_secret()).tenant_id == "acme"


ACCEPTED: dict[str, Callable[[float], dict[str, Any]]] = {
    "a list of one audience": lambda now: {"aud": [AUDIENCE]},
    "ours among other audiences": lambda now: {"aud": ["other", AUDIENCE]},
    "one role as a text": lambda now: {"roles": "admin"},
    "no iat and no sub": lambda now: {"iat": None, "sub": None},
    "a fraction of a second": lambda now: {"exp": now + 60.5},
    "exp within the leeway": lambda now: {"exp": now - LEEWAY_SECONDS / 2},
    "nbf within the leeway": lambda now: {"nbf": now + LEEWAY_SECONDS / 2},
    "a tenant of 64 letters": lambda now: {"tenant_id": "t" * 64},
}


@pytest.mark.parametrize("claims", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_the_standard_leaves_open_is_accepted(
    claims: Callable[[float], dict[str, Any]],
) -> None:
    assert authenticate(RSA.token(**claims(time.time()))).roles == ("admin",)


def test_a_token_without_roles_is_somebody_who_may_do_nothing() -> None:
    assert authenticate(RSA.token(roles=None)).roles == ()
    assert authenticate(RSA.token(roles=[])).roles == ()


def test_the_only_key_needs_no_name() -> None:
    nameless = SigningKey(None)
    assert authenticate(nameless.token(), of_jwks(nameless)).tenant_id == "acme"
    unnamed = RSA.sign({"alg": "RS256"}, valid_claims())
    assert authenticate(unnamed, of_jwks(RSA)).tenant_id == "acme"


# -- claims -------------------------------------------------------------------------------------------

ClaimsAt = Callable[[int], dict[str, Any]]
"""Claims at a time: tests are collected long before they run."""

CLAIMS: dict[str, ClaimsAt] = {
    "no exp": lambda now: {"exp": None},
    "expired": lambda now: {"exp": now - 60},
    "exp zero": lambda now: {"exp": 0},
    "exp negative": lambda now: {"exp": -1},
    "exp as text": lambda now: {"exp": str(now + 600)},
    "exp true": lambda now: {"exp": True},
    "exp a list": lambda now: {"exp": [now + 600]},
    "exp an object": lambda now: {"exp": {"$gt": 0}},
    "exp beyond floats": lambda now: {"exp": 10**400},
    "exp in milliseconds": lambda now: {"exp": (now + 600) * 1000},
    "exp as large as floats go": lambda now: {"exp": 1e308},
    "nbf ahead": lambda now: {"nbf": now + 600},
    "nbf no number": lambda now: {"nbf": "soon"},
    "iat ahead": lambda now: {"iat": now + 600},
    "no issuer": lambda now: {"iss": None},
    "another issuer": lambda now: {"iss": "https://login.example.evil"},
    "a part of the issuer": lambda now: {"iss": ISSUER[:-1]},
    "a slash more": lambda now: {"iss": ISSUER + "/"},
    "a list of issuers": lambda now: {"iss": [ISSUER]},
    "issuer in upper case": lambda now: {"iss": ISSUER.upper()},
    "no audience": lambda now: {"aud": None},
    "another audience": lambda now: {"aud": "other"},
    "no audience in the list": lambda now: {"aud": []},
    "a part of the audience": lambda now: {"aud": AUDIENCE[:-1]},
    "an audience that contains ours": lambda now: {"aud": AUDIENCE + ".evil"},
    "an audience of no texts": lambda now: {"aud": [AUDIENCE, 1]},
    "an audience as an object": lambda now: {"aud": {AUDIENCE: True}},
    "no tenant": lambda now: {"tenant_id": None},
    "an empty tenant": lambda now: {"tenant_id": ""},
    "a tenant as a list": lambda now: {"tenant_id": ["acme"]},
    "a tenant with a blank": lambda now: {"tenant_id": "acme "},
    "a tenant with a newline": lambda now: {"tenant_id": "acme\n"},
    "a wildcard tenant": lambda now: {"tenant_id": "*"},
    "a longer wildcard tenant": lambda now: {"tenant_id": "acme.>"},
    "a tenant of other letters": lambda now: {"tenant_id": "\u0430cme"},
    "a tenant of 65 letters": lambda now: {"tenant_id": "t" * 65},
    "roles as a number": lambda now: {"roles": 1},
    "roles as an object": lambda now: {"roles": {"admin": True}},
    "roles true": lambda now: {"roles": True},
    "an empty role": lambda now: {"roles": [""]},
    "roles as an empty text": lambda now: {"roles": ""},
    "roles separated by blanks": lambda now: {"roles": "admin viewer"},
    "a role with a newline": lambda now: {"roles": ["admin\n"]},
    "a wildcard role": lambda now: {"roles": ["*"]},
    "a list in the list": lambda now: {"roles": [["admin"]]},
    "null among the roles": lambda now: {"roles": ["admin", None]},
    "a subject that is no text": lambda now: {"sub": 7},
    "an id that is no text": lambda now: {"jti": 7},
}


@pytest.mark.parametrize("claims", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_well_signed_token_with_a_wrong_claim_is_no_credential(claims: ClaimsAt) -> None:
    refused(RSA.token(**claims(int(time.time()))))


STRANGE: dict[str, Callable[[], str]] = {
    "iat NaN": lambda: json.dumps({**valid_claims(), "iat": float("nan")}),
    "exp NaN": lambda: json.dumps({**valid_claims(), "exp": float("nan")}),
    "exp Infinity": lambda: json.dumps({**valid_claims(), "exp": float("inf")}),
    "exp twice": lambda: json.dumps(valid_claims())[:-1] + ', "exp": 1}',
    "exp of 5000 digits": lambda: json.dumps(valid_claims())[:-1] + ', "exp": ' + "9" * 5000 + "}",
    "nested deeply": lambda: '{"a":' * 2000 + "1" + "}" * 2000,
    "a list": lambda: json.dumps([valid_claims()]),
    "a text": lambda: '"text"',
    "null": lambda: "null",
    "nothing": lambda: "",
    "half": lambda: "{",
    "a token in the token": RSA.token,
}


@pytest.mark.parametrize("text", STRANGE.values(), ids=STRANGE.keys())
def test_well_signed_claims_that_are_strange_json_are_no_credential(
    text: Callable[[], str],
) -> None:
    refused(RSA.sign(RSA.header(), text()))


# -- signatures and headers ---------------------------------------------------------------------------


def test_a_signature_of_somebody_else_is_none() -> None:
    assert "not valid" in refused(STRANGER.token())


def test_a_changed_claim_breaks_the_signature() -> None:
    header, _, signature = RSA.token(tenant_id="acme").split(".")
    refused(f"{header}.{part(valid_claims(tenant_id='umbrella'))}.{signature}")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_none(alg: str) -> None:
    for signature in ("", part(b"x"), RSA.token().split(".")[2]):
        refused(f"{part({'alg': alg})}.{part(valid_claims())}.{signature}")


@pytest.mark.parametrize("key", [RSA, EC], ids=["RSA", "EC"])
def test_a_public_key_is_no_shared_secret(key: SigningKey) -> None:
    """HS256 with what everybody can read as its secret: the algorithm must be allowed and fit the key."""
    pem = key.public_pem()
    for secret in (pem, pem.strip(), json.dumps(key.jwk()).encode()):
        token = hs256({"alg": "HS256", "kid": key.kid}, valid_claims(), secret)
        refused(token)
        refused(token, of_jwks(RSA, EC, algorithms=("RS256", "ES256", "HS256")))


def test_a_symmetric_key_in_the_jwks_signs_nothing() -> None:
    published = {"kty": "oct", "k": part(SECRET), "kid": "shared", "alg": "HS256"}
    token = hs256({"alg": "HS256", "kid": "shared"}, valid_claims(), SECRET.encode())
    refused(token, of_jwks(RSA, published, algorithms=("RS256", "HS256")))


def test_a_key_of_one_kind_does_not_check_the_other() -> None:
    refused(EC.sign({"alg": "RS256", "kid": "rsa-1"}, valid_claims()))
    refused(RSA.sign({"alg": "ES256", "kid": "ec-1"}, valid_claims()))
    refused(RSA.sign({"alg": "ES256", "kid": "rsa-1"}, valid_claims()))


@pytest.mark.parametrize("alg", ["PS256", "RS384", "RS512", "ES384", "HS384", "EdDSA", "rs256"])
def test_an_algorithm_outside_the_allowlist_is_refused(alg: str) -> None:
    assert "algorithm" in refused(RSA.sign({"alg": alg, "kid": "rsa-1"}, valid_claims()))


def test_a_key_that_names_another_algorithm_does_not_check_rs256() -> None:
    refused(RSA.token(), of_jwks(RSA.jwk(alg="PS256")))
    refused(RSA.token(), of_jwks(RSA, algorithms=("ES256",)))


def test_a_key_for_encryption_checks_no_signature() -> None:
    refused(RSA.token(), of_jwks(EC, RSA.jwk(use="enc")))


HEADERS: dict[str, dict[str, Any]] = {
    "an extension that must be understood": {"crit": ["exp"], "exp": 1},
    "an empty crit": {"crit": []},
    "crit null": {"crit": None},
    "an unencoded payload": {"crit": ["b64"], "b64": False},
    "an unencoded payload that says nothing": {"b64": False},
    "another kid": {"kid": "other"},
    "an empty kid": {"kid": ""},
    "kid null": {"kid": None},
    "kid a number": {"kid": 1},
    "kid a list": {"kid": ["rsa-1"]},
    "kid an object": {"kid": {"rsa-1": 1}},
    "a path for kid": {"kid": "../../../../dev/null"},
    "SQL for kid": {"kid": "x' UNION SELECT 'rsa-1"},
    "a lone surrogate for kid": {"kid": "\ud800"},
    "a long kid": {"kid": "k" * 4000},
    "alg a number": {"alg": 1},
    "alg a list": {"alg": ["RS256"]},
    "alg null": {"alg": None},
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS.keys())
def test_a_strange_header_is_refused(header: dict[str, Any]) -> None:
    refused(RSA.sign({**RSA.header(), **header}, valid_claims()))


EVIL = SigningKey("rsa-1")
BROUGHT: dict[str, dict[str, Any]] = {
    "jwk": {"jwk": EVIL.jwk()},
    "jku": {"jku": "http://127.0.0.1:1/jwks.json"},
    "x5u": {"x5u": "http://127.0.0.1:1/cert.pem"},
    "x5c": {"x5c": [part(b"certificate")]},
}


@pytest.mark.parametrize("header", BROUGHT.values(), ids=BROUGHT.keys())
def test_a_key_that_a_token_brings_along_is_not_used(header: dict[str, Any]) -> None:
    refused(EVIL.sign({**EVIL.header(), **header}, valid_claims()))
    authenticate(RSA.sign({**RSA.header(), **header}, valid_claims()))


@pytest.mark.parametrize(
    "token",
    ["x", "x.y", "x.y.z", "..", "...", ".....", "a.b.c.d.e", "e30.e30.", "A" * 8000, "-._~+/=="],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    refused(token)


@hypothesis_settings(deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(["exp", "nbf", "iat", "iss", "aud", "tenant_id", "roles", "sub", "jti"]),
)  # fmt: skip
def test_whatever_a_claim_holds_the_token_is_believed_or_refused(value: Any, claim: str) -> None:
    token = hs256({"alg": "HS256"}, {**valid_claims(), claim: value}, SECRET.encode())
    try:
        principal = authenticate(token, of_secret())
    except Unauthenticated:
        return
    assert principal.tenant_id and principal.expires_at is not None
    assert time.time() < principal.expires_at


@hypothesis_settings(deadline=None)
@given(st.text(st.sampled_from("abcABC012.-_=~+/"), max_size=60))
def test_whatever_stands_there_it_is_refused_and_nothing_else(text: str) -> None:
    with pytest.raises(Unauthenticated):
        authenticate(text)


# -- who is asked -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        ("Accept", "*/*"),
        ("X-API-Key", "{token}"),
        ("Authorization", "Basic {token}"),
        ("Authorization", "{token}"),
        ("Authorization", "Bearer {token},Bearer {token}"),
        ("Authorization", "Bearer {token} {token}"),
        ("Cookie", "Authorization=Bearer {token}"),
    ],
)
def test_only_one_bearer_credential_is_one(header: tuple[str, str]) -> None:
    named = {header[0]: header[1].format(token=RSA.token())}
    identity = {"X-Tenant-ID": "acme", "X-Role": "admin"}
    with pytest.raises(Unauthenticated) as caught:
        BOTH.authenticate(Headers({**identity, **named}), "127.0.0.1", time.monotonic() + 20)
    assert caught.value.challenge.startswith('Bearer realm="beamline-gateway"')


def test_a_jwks_that_cannot_be_had_is_neither_yes_nor_no() -> None:
    def away() -> dict[str | None, jwt.PyJWK]:
        raise SourceUnavailable("away")

    keys = SigningKeys(away, ttl_seconds=60)
    with pytest.raises(SourceUnavailable):
        authenticate(RSA.token(), _authenticator(public_keys(keys), ("RS256",)))


def test_an_algorithm_that_is_not_allowed_asks_no_source() -> None:
    def asked() -> dict[str | None, jwt.PyJWK]:
        raise AssertionError("asked")

    keys = public_keys(SigningKeys(asked, ttl_seconds=60))
    refused(f"{part({'alg': 'none'})}.{part(valid_claims())}.", _authenticator(keys, ("RS256",)))
