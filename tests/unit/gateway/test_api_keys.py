"""API keys: looked up by digest, compared in constant time, good as long as their record says."""

from __future__ import annotations

import contextlib
import hmac
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.datastructures import Headers

from gateway.identity import ApiKeyAuthenticator, Principal, Unauthenticated
from gateway.identity.keys import ApiKey, InvalidKeys, decode, digest_of, encode, new_key
from gateway.sources import SourceUnavailable
from tests.support.waiting import wait_until

KEY = new_key()
RECORD = ApiKey.of(KEY, tenant_id="acme", roles=("admin", "viewer"), name="tests")


class Kept:
    """A source of keys that notes what it is asked for."""

    def __init__(self, find: Callable[[str], ApiKey | None] | None = None) -> None:
        self._find = find or {RECORD.digest: RECORD}.get
        self.asked: list[str] = []

    def find(self, digest: str) -> ApiKey | None:
        self.asked.append(digest)
        return self._find(digest)


def authenticate(source: Kept, *headers: tuple[str, str]) -> Principal:
    authenticator = ApiKeyAuthenticator(source, ttl_seconds=60, deny_ttl_seconds=5)
    return authenticator.authenticate(Headers(headers), "203.0.113.9", time.monotonic() + 20)


def refused(source: Kept, *headers: tuple[str, str]) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        authenticate(source, *headers)
    return caught.value


def bearer(key: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {key}"


# -- who is let in ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [bearer(KEY)],
        [("authorization", f"bEARER {KEY}")],
        [("X-API-Key", KEY)],
        [bearer(KEY), ("X-API-Key", KEY)],
        [("Authorization", ""), ("X-API-Key", KEY)],
    ],
    ids=["Bearer", "case of the scheme", "X-API-Key", "both", "an empty Authorization"],
)
def test_the_principal_is_the_records(headers: list[tuple[str, str]]) -> None:
    principal = authenticate(Kept(), *headers)
    assert (principal.tenant_id, principal.roles) == ("acme", ("admin", "viewer"))
    assert (principal.method, principal.key_prefix) == ("api_key", KEY[:12])
    assert principal.expires_at is None


def test_the_source_is_asked_for_the_digest_and_never_sees_the_key() -> None:
    source = Kept()
    authenticate(source, bearer(KEY))
    assert source.asked == [digest_of(KEY)]


def test_the_digest_of_what_was_found_is_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[tuple[Any, Any]] = []

    def compare_digest(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    real = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", compare_digest)
    authenticate(Kept(), bearer(KEY))
    assert compared == [(RECORD.digest, digest_of(KEY))]


def test_a_source_that_returns_another_keys_record_lets_nobody_in() -> None:
    presented = new_key()
    error = refused(Kept(lambda _digest: RECORD), bearer(presented))
    assert str(error) == str(refused(Kept(lambda _: None), bearer(presented)))


def test_a_key_ends_when_its_record_says_so_though_the_record_is_remembered() -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=0.3)
    source = Kept(lambda _: replace(RECORD, expires_at=expires_at))
    authenticator = ApiKeyAuthenticator(source, ttl_seconds=60, deny_ttl_seconds=5)
    headers = Headers([bearer(KEY)])
    principal = authenticator.authenticate(headers, "", time.monotonic() + 20)
    assert principal.expires_at == expires_at.timestamp()
    wait_until(lambda: datetime.now(UTC) >= expires_at)
    with pytest.raises(Unauthenticated, match="expired"):
        authenticator.authenticate(headers, "", time.monotonic() + 20)
    assert len(source.asked) == 1


def test_a_principal_is_good_as_long_as_what_was_found() -> None:
    before = time.monotonic()
    principal = authenticate(Kept(), bearer(KEY))
    assert before + 60 <= principal.good_until <= time.monotonic() + 60


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"revoked_at": datetime.now(UTC)}, "revoked"),
        ({"expires_at": datetime.now(UTC)}, "expired"),
        ({"expires_at": datetime(2000, 1, 1, tzinfo=timezone(timedelta(hours=14)))}, "expired"),
        ({"expires_at": datetime(2000, 1, 1, tzinfo=UTC), "revoked_at": datetime.now(UTC)}, "revoked"),
        ({"revoked_at": datetime.now(UTC) + timedelta(days=1)}, "revoked"),
    ],
)  # fmt: skip
def test_a_key_that_is_over_is_no_credential(change: dict[str, Any], state: str) -> None:
    error = refused(Kept(lambda _: replace(RECORD, **change)), bearer(KEY))
    assert str(error) == f"The API key is {state}."
    assert 'error="invalid_token"' in error.challenge


def test_a_source_that_fails_is_neither_yes_nor_no() -> None:
    def fail(_: str) -> ApiKey | None:
        raise SourceUnavailable("away")

    with pytest.raises(SourceUnavailable):
        authenticate(Kept(fail), bearer(KEY))


# -- who is not even looked up ------------------------------------------------------------------------

MALFORMED = {
    "nothing": [],
    "an empty header": [("X-API-Key", "")],
    "another scheme": [("Authorization", f"Basic {KEY}")],
    "no scheme": [("Authorization", KEY)],
    "a tab for the blank": [("Authorization", f"Bearer\t{KEY}")],
    "only the scheme": [("Authorization", "Bearer ")],
    "one byte less": [bearer(KEY[:-1])],
    "one byte more": [bearer(KEY + "A")],
    "padding": [bearer(KEY + "=")],
    "a vertical tab at the end": [("X-API-Key", KEY + "\x0b")],
    "NUL at the end": [("X-API-Key", KEY + "\0")],
    "blanks around": [("X-API-Key", f" {KEY} ")],
    "upper case": [bearer(KEY.upper())],
    "an upper-case prefix": [bearer(KEY[:4] + "ABCDEFGH" + KEY[12:])],
    "arabic digits": [("X-API-Key", "blk_" + "\u0661" * 8 + KEY[12:])],
    "fullwidth letters": [("X-API-Key", "\uff42lk" + KEY[3:])],
    "latin-1": [("X-API-Key", KEY[:-1] + "\xe9")],
    "a long s": [("X-API-Key", KEY[:-1] + "\u017f")],
    "twice, joined by a server": [("X-API-Key", f"{KEY},{KEY}")],
    "twice in Authorization": [("Authorization", f"Bearer {KEY},Bearer {KEY}")],
    "two different ones": [bearer(KEY), ("X-API-Key", new_key())],
    "one, and rubbish beside it": [bearer(KEY), ("X-API-Key", "x")],
    "rubbish, and one beside it": [bearer("x"), ("X-API-Key", KEY)],
    "Basic, and one beside it": [("Authorization", "Basic eDp4"), ("X-API-Key", KEY)],
    "its digest": [bearer(RECORD.digest)],
    "a path": [("X-API-Key", "blk_../../.._" + "A" * 43)],
    "a wildcard": [("X-API-Key", "blk_********_" + ">" * 43)],
    "very much": [("X-API-Key", "blk_" + "A" * 100_000)],
}


@pytest.mark.parametrize("headers", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_no_key_is_refused_without_a_lookup_and_not_repeated(
    headers: list[tuple[str, str]],
) -> None:
    source = Kept()
    error = refused(source, *headers)
    assert source.asked == []
    assert error.challenge.startswith("Bearer realm=")
    told = f"{error} {error.challenge}"
    assert KEY[12:] not in told and KEY[4:12] not in told


@hypothesis_settings(deadline=None)
@given(st.text(st.characters(max_codepoint=255), max_size=80))
def test_no_other_text_than_a_key_is_ever_looked_up(text: str) -> None:
    source = Kept()
    for header in (("X-API-Key", text), ("Authorization", text), bearer(text)):
        with pytest.raises((Unauthenticated, ValueError)):  # werkzeug refuses newlines itself
            authenticate(source, header)
    assert source.asked == []


# -- what is kept -------------------------------------------------------------------------------------


def test_keys_are_never_the_same_and_hold_256_bits() -> None:
    keys = {new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(re.fullmatch(r"blk_[0-9a-z]{8}_[A-Za-z0-9_-]{43}", key) for key in keys)


def test_what_is_kept_of_a_key_tells_it_apart_and_does_not_open_anything() -> None:
    content = encode({RECORD.digest: RECORD})
    assert KEY.encode() not in content and KEY[13:].encode() not in content
    assert KEY[:12].encode() in content


def test_a_file_is_read_as_it_was_written() -> None:
    keys = {}
    for change in (
        {},
        {"revoked_at": datetime.now(UTC)},
        {"expires_at": datetime(2099, 1, 1, tzinfo=UTC)},
    ):
        record = replace(ApiKey.of(new_key(), tenant_id="acme", roles=()), **change)  # type: ignore[arg-type]
        keys[record.digest] = record
    assert decode(encode(keys)) == keys
    assert encode(decode(encode(keys))) == encode(keys)


def entry(**change: Any) -> dict[str, Any]:
    """An entry of the file; None takes a field away."""
    return {name: value for name, value in {**RECORD.as_json(), **change}.items() if value != "-"}


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([entry(digest="-")], "no valid digest"),
        ([entry(digest=RECORD.digest.upper())], "no valid digest"),
        ([entry(digest=RECORD.digest + "\n")], "no valid digest"),
        ([entry(digest=7)], "no valid digest"),
        ([entry(prefix="-")], "no valid prefix"),
        ([entry(prefix="blk_12345678_")], "no valid prefix"),
        ([entry(tenant_id="-")], "no valid tenant_id"),
        ([entry(tenant_id="")], "no valid tenant_id"),
        ([entry(tenant_id="acme umbrella")], "no valid tenant_id"),
        ([entry(tenant_id="*")], "no valid tenant_id"),
        ([entry(tenant_id=["acme"])], "no valid tenant_id"),
        ([entry(roles="-")], "no valid roles"),
        ([entry(roles="admin")], "no valid roles"),
        ([entry(roles=["admin", ""])], "no valid roles"),
        ([entry(roles=["admin", "*"])], "no valid roles"),
        ([entry(roles=["admin\n"])], "no valid roles"),
        ([entry(roles=[["admin"]])], "no valid roles"),
        ([entry(roles={"admin": True})], "no valid roles"),
        ([entry(name=1)], "no valid name"),
        ([entry(created_at="-")], "no valid created_at"),
        ([entry(created_at="yesterday")], "no valid created_at"),
        ([entry(expires_at="2030-01-31")], "no valid expires_at"),
        ([entry(expires_at="2030-01-31T00:00:00")], "no valid expires_at"),
        ([entry(expires_at=1893456000)], "no valid expires_at"),
        ([entry(expires_at="")], "no valid expires_at"),
        ([entry(expires_at=False)], "no valid expires_at"),
        ([entry(revoked_at=True)], "no valid revoked_at"),
        ([entry(revoked="now")], "unknown field 'revoked'"),
        ([entry(), entry(revoked_at="2026-01-01T00:00:00Z")], "there twice"),
        (["blk_12345678_" + "A" * 43], "an entry is no object"),
        ([None], "an entry is no object"),
        ({}, 'is not {"keys": [...]}'),
    ],
)  # fmt: skip
def test_what_cannot_be_read_as_a_key_is_told(entries: Any, problem: str) -> None:
    with pytest.raises(InvalidKeys) as caught:
        decode(json.dumps({"keys": entries}).encode())
    assert problem in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"keys": [NaN]}'])
def test_what_is_no_file_of_keys_is_told(content: bytes) -> None:
    with pytest.raises(InvalidKeys, match="is not"):
        decode(content)


@pytest.mark.parametrize("misplaced", [{"prefix": KEY}, {KEY: "acme"}, {"digest": KEY}])
def test_a_key_that_somebody_put_into_the_file_is_not_told(misplaced: dict[str, str]) -> None:
    with pytest.raises(InvalidKeys) as caught:
        decode(json.dumps({"keys": [entry(**misplaced)]}).encode())
    assert KEY[13:17] not in str(caught.value)


@hypothesis_settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*RECORD.as_json(), "other"]),
        st.none() | st.booleans() | st.integers() | st.text(max_size=30) | st.lists(st.text()),
    )
)
def test_whatever_an_entry_holds_it_is_read_or_refused(change: dict[str, Any]) -> None:
    with contextlib.suppress(InvalidKeys):
        ApiKey.from_json({**RECORD.as_json(), **change}).state(datetime.now(UTC))
