"""Signing keys: believed for a while, looked for again when a ``kid`` is unknown, and never hammered at."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import jwt
import pytest

from gateway.identity.signing_keys import SigningKeys, parse
from gateway.sources import SourceUnavailable
from tests.support.access_tokens import SigningKey, jwks
from tests.support.waiting import GENEROUS_SECONDS, wait_until

OLD: Final = SigningKey("old")
NEW: Final = SigningKey("new")
EC: Final = SigningKey("ec", "EC")


class Provider:
    """The source of a JWKS: counts, answers when it is let, or fails."""

    def __init__(self, *keys: SigningKey) -> None:
        self.document = jwks(*keys)
        self.down = False
        self.asked = 0
        self.open = threading.Event()
        self.open.set()

    def publish(self, *keys: SigningKey) -> None:
        self.document = jwks(*keys)

    def read(self) -> dict[str | None, jwt.PyJWK]:
        self.asked += 1
        assert self.open.wait(GENEROUS_SECONDS)
        if self.down:
            raise SourceUnavailable("down")
        return parse(self.document)


def soon() -> float:
    return time.monotonic() + GENEROUS_SECONDS


# -- the document -------------------------------------------------------------------------------------


def test_the_usable_keys_are_those_that_check_signatures() -> None:
    keys = parse(
        jwks(
            OLD,
            EC.jwk(use=None, alg=None),
            NEW.jwk(kid="for-encryption", use="enc"),
            {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
            {**NEW.private_jwk(), "kid": "private"},
        )
    )
    assert set(keys) == {"old", "ec"}


STRANGE: dict[str, Any] = {
    "no object": "key",
    "nothing": {},
    "an unknown kind": {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
    "no modulus": NEW.jwk(n=None),
    "a modulus that is a number": NEW.jwk(n=5),
    "a modulus that is no base64": NEW.jwk(n="!!!"),
    "an exponent of zero": NEW.jwk(e="AA"),
    "an unknown algorithm": NEW.jwk(alg="RS257"),
    "alg none": NEW.jwk(alg="none"),
    "alg HS256": NEW.jwk(alg="HS256"),
    "alg a list": NEW.jwk(alg=["RS256"]),
    "an unknown curve": EC.jwk(crv="P-999", alg=None),
    "a point that is not on the curve": EC.jwk(x=EC.jwk()["y"]),
    "a kid that is a list": NEW.jwk(kid=["old"]),
    "a kid that is an object": NEW.jwk(kid={"old": 1}),
    "a kid that is a number": NEW.jwk(kid=1),
    "kty a list": NEW.jwk(kty=["RSA"]),
}


@pytest.mark.parametrize("entry", STRANGE.values(), ids=STRANGE.keys())
def test_a_strange_entry_takes_nothing_away_from_the_others(entry: Any) -> None:
    document = json.dumps({"keys": [entry, OLD.jwk()]}).encode()
    assert set(parse(document)) == {"old"}


@pytest.mark.parametrize(
    "document", [b"", b"{", b"[]", b"null", b"{}", b'{"keys": {}}', b'{"keys": []}', b"\xff"]
)
def test_a_document_without_a_key_is_none(document: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(document)


# -- looking ------------------------------------------------------------------------------------------


def test_known_keys_are_found_without_asking_again() -> None:
    provider = Provider(OLD, NEW)
    keys = SigningKeys(provider.read, ttl_seconds=60)
    for kid in ("old", "new", "old") * 10:
        found = keys.find(kid, soon())
        assert found is not None and found.key_id == kid
    assert provider.asked == 1


def test_a_key_that_is_new_is_found_by_asking_again_and_one_that_is_gone_is_not_believed() -> None:
    provider = Provider(OLD)
    keys = SigningKeys(provider.read, ttl_seconds=60, pause_seconds=0.0)
    assert keys.find("old", soon())
    provider.publish(NEW)
    assert keys.find("new", soon())
    assert provider.asked == 2
    assert keys.find("old", soon()) is None


def test_a_flood_of_unknown_names_asks_once_in_a_pause() -> None:
    provider = Provider(OLD)
    keys = SigningKeys(provider.read, ttl_seconds=60, pause_seconds=30)

    def ask(number: int) -> object:
        return keys.find(f"unknown-{number}", soon())

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(500))) == {None}
    assert provider.asked == 1, "the first look is the look of this pause, too"


def test_after_the_pause_an_unknown_name_asks_again() -> None:
    provider = Provider(OLD)
    keys = SigningKeys(provider.read, ttl_seconds=60, pause_seconds=0.05)
    keys.find("old", soon())
    wait_until(lambda: keys.find("new", soon()) is None and provider.asked == 3)


def test_the_first_at_once_are_one_look_and_all_get_the_key() -> None:
    provider = Provider(OLD)
    provider.open.clear()
    keys = SigningKeys(provider.read, ttl_seconds=60)
    with ThreadPoolExecutor(64) as pool:
        asking = [pool.submit(keys.find, "old", soon()) for _ in range(64)]
        wait_until(lambda: provider.asked and all(one.running() for one in asking))
        provider.open.set()
        found = [one.result(GENEROUS_SECONDS) for one in asking]
    assert all(key is not None and key.key_id == "old" for key in found)
    assert provider.asked == 1


def test_a_rotation_refuses_none_of_those_who_come_during_the_look_for_it() -> None:
    provider = Provider(OLD)
    keys = SigningKeys(provider.read, ttl_seconds=60, pause_seconds=0.0)
    keys.find("old", soon())
    provider.publish(OLD, NEW)
    provider.open.clear()
    with ThreadPoolExecutor(16) as pool:
        asking = [pool.submit(keys.find, "new", soon()) for _ in range(16)]
        wait_until(lambda: provider.asked == 2 and all(one.running() for one in asking))
        known = keys.find("old", soon())
        assert known is not None, "who has its key does not wait for the look of others"
        provider.open.set()
        assert all(one.result(GENEROUS_SECONDS) for one in asking)


def test_keys_are_read_again_from_half_of_their_time_on() -> None:
    provider = Provider(OLD)
    keys = SigningKeys(provider.read, ttl_seconds=0.4, pause_seconds=0.0)
    started = time.monotonic()
    keys.find("old", soon())
    wait_until(lambda: keys.find("old", soon()) and provider.asked > 1)
    assert time.monotonic() - started >= 0.2


def test_an_outage_is_not_noticed_before_the_keys_are_over_and_then_nobody_is_let_in() -> None:
    provider = Provider(OLD)
    keys = SigningKeys(provider.read, ttl_seconds=2.0, pause_seconds=0.0)
    before = time.monotonic()
    keys.find("old", soon())
    read_by = time.monotonic()
    provider.down = True

    def usable() -> bool:
        try:
            return keys.find("old", soon()) is not None
        except SourceUnavailable:
            return False

    while time.monotonic() < before + 1.0:
        assert usable()
    wait_until(lambda: not usable())
    assert time.monotonic() >= before + 2.0
    wait_until(lambda: time.monotonic() > read_by + 2.0)
    assert not usable()
    provider.down = False
    assert usable(), "back: works at once"


def test_a_source_that_fails_is_asked_once_in_a_pause() -> None:
    provider = Provider(OLD)
    provider.down = True
    keys = SigningKeys(provider.read, ttl_seconds=60, pause_seconds=30)
    for _ in range(20):
        with pytest.raises(SourceUnavailable):
            keys.find("old", soon())
    assert provider.asked == 1


def test_who_has_no_time_does_not_wait_for_the_look_of_another() -> None:
    provider = Provider(OLD)
    provider.open.clear()
    keys = SigningKeys(provider.read, ttl_seconds=60)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(keys.find, "old", soon())
        wait_until(lambda: provider.asked)
        with pytest.raises(SourceUnavailable):
            keys.find("old", time.monotonic() - 1)
        provider.open.set()
        assert asking.result(GENEROUS_SECONDS)


def test_a_token_without_a_name_is_checked_only_where_there_is_one_key() -> None:
    assert SigningKeys(Provider(OLD).read, ttl_seconds=60).find(None, soon())
    assert SigningKeys(Provider(OLD, NEW).read, ttl_seconds=60).find(None, soon()) is None
