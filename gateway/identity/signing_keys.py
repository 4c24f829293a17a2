"""Signing keys of JWTs: a JWKS from a file or a URL, kept for a while, asked again for an unknown ``kid`` (bounded)."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jwt

from gateway import json
from gateway.sources import LOOKUP_SECONDS, SourceUnavailable, WatchedFile

_log = logging.getLogger(__name__)
_LARGEST: Final = 1024 * 1024
_CHUNK: Final = 64 * 1024
_PAUSE_SECONDS: Final = 10.0
"""Between two looks at the source that an unknown ``kid`` causes, and after a failed one: nobody makes us hammer it."""


def parse(document: bytes) -> dict[str | None, jwt.PyJWK]:
    """The usable signing keys by ``kid``. Raises ValueError; unknown kinds of keys are left out (RFC 7517, 5)."""
    raw = json.loads(document)
    entries = raw.get("keys") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise ValueError("is no JWKS")
    keys: dict[str | None, jwt.PyJWK] = {}
    for entry in entries:
        # A symmetric key does not belong where everybody can read it.
        if not isinstance(entry, dict) or entry.get("kty") not in ("RSA", "EC"):
            continue
        if entry.get("use", "sig") != "sig" or "d" in entry:
            continue
        try:
            key = jwt.PyJWK.from_dict(entry)
        except Exception as error:
            # Whatever a strange entry makes PyJWT, cryptography or Python raise.
            _log.warning("a key of the JWKS is left out: %s", type(error).__name__)
            continue
        if key.key_id is None or isinstance(key.key_id, str):
            keys[key.key_id] = key
    if not keys:
        raise ValueError("holds no signing key (RSA or EC)")
    return keys


def from_file(path: Path) -> Callable[[], dict[str | None, jwt.PyJWK]]:
    """Reads the file again when it has changed."""
    return WatchedFile(path, parse).read


def from_url(url: str) -> Callable[[], dict[str | None, jwt.PyJWK]]:
    """Fetches the document; no redirect is followed, so that the address that was configured is the one believed."""
    opener = urllib.request.build_opener(_NoRedirect())

    def fetch() -> dict[str | None, jwt.PyJWK]:
        give_up_at = time.monotonic() + LOOKUP_SECONDS
        document = bytearray()
        try:
            # The timeout is that of one read: a source that drips has it anew for every byte.
            with opener.open(url, timeout=LOOKUP_SECONDS) as answer:
                while chunk := answer.read1(_CHUNK):
                    document += chunk
                    if len(document) > _LARGEST:
                        raise ValueError(f"is larger than {_LARGEST} bytes")
                    if time.monotonic() >= give_up_at:
                        raise TimeoutError("it comes too slowly")
            return parse(bytes(document))
        except (OSError, ValueError, http.client.HTTPException) as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()  # it is the answer, too, with its connection
            raise SourceUnavailable(f"the JWKS cannot be read: {error}") from None

    return fetch


class SigningKeys:
    """The keys of one source. Safe from any thread; one of them asks the source, the others use what is there."""

    def __init__(
        self,
        read: Callable[[], dict[str | None, jwt.PyJWK]],
        *,
        ttl_seconds: float,
        pause_seconds: float = _PAUSE_SECONDS,
    ) -> None:
        self._read = read
        self._ttl = ttl_seconds
        self._pause = pause_seconds
        self._reading = threading.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at: float | None = None
        self._next_look = 0.0

    def find(self, kid: str | None, deadline: float) -> jwt.PyJWK | None:
        """The key of a ``kid``; without one, the only key there is. None: no such key.

        Raises SourceUnavailable when the source has not answered for a whole TTL.
        """
        key = self._choose(kid)
        now = time.monotonic()
        if self._due(now, unknown=key is None):
            # Who has no key to go on with waits for the look, also for one that somebody else has begun.
            self._look(deadline, wait=key is None or self._is_stale(now))
            key = self._choose(kid)
        if self._is_stale(time.monotonic()):
            raise SourceUnavailable("the JWKS has not been readable for too long")
        return key

    def _is_stale(self, now: float) -> bool:
        return self._read_at is None or now - self._read_at >= self._ttl

    def _choose(self, kid: str | None) -> jwt.PyJWK | None:
        keys = self._keys
        if kid is None:
            return next(iter(keys.values())) if len(keys) == 1 else None
        return keys.get(kid)

    def _due(self, now: float, *, unknown: bool) -> bool:
        if now < self._next_look:
            return False
        # From half of the TTL on: an outage of the source has that long to end before anybody is refused.
        return unknown or self._read_at is None or now - self._read_at >= self._ttl / 2

    def _look(self, deadline: float, *, wait: bool) -> None:
        patience = min(LOOKUP_SECONDS, deadline - time.monotonic()) if wait else 0.0
        if not self._reading.acquire(timeout=max(0.0, patience)):
            return
        try:
            started = time.monotonic()
            if started < self._next_look:  # somebody else has just looked
                return
            try:
                self._keys = self._read()
                self._read_at = started
            except SourceUnavailable as error:
                _log.warning("%s", error)
            finally:
                # A source that answers is asked again for an unknown kid after the pause; one that does not,
                # likewise. Set at the end: who comes meanwhile is to wait, not to be told that no look is due.
                self._next_look = time.monotonic() + self._pause
        finally:
            self._reading.release()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None
