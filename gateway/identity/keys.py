"""API keys: what they look like, what is kept of them, and where.

A key is ``blk_<prefix>_<secret>``: the prefix tells keys apart in lists and logs, the secret has 256 bits and is shown
once. What is kept is the SHA-256 of the whole key; a fast hash is enough for what cannot be guessed. Kept in a JSON
file (the default) or in the bucket ``BEAMLINE_APIKEYS``, an entry a key.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol, Self

from bridge import Bridge
from gateway import json
from gateway.names import ROLE_PATTERN, TENANT_PATTERN
from gateway.sources import SourceUnavailable, WatchedFile, read_entry

BUCKET: Final = "BEAMLINE_APIKEYS"
KEY_PATTERN: Final = re.compile(r"blk_([0-9a-z]{8})_[A-Za-z0-9_-]{43}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
PREFIX_PATTERN: Final = re.compile(r"blk_[0-9a-z]{8}")
_PREFIX_LENGTH: Final = len("blk_") + 8
_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyz"


class InvalidKeys(ValueError):
    """What is kept cannot be read as keys; the text says what and where."""


def new_key() -> str:
    """A key nobody has."""
    prefix = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"blk_{prefix}_{secrets.token_urlsafe(32)}"


def digest_of(key: str) -> str:
    """What is kept instead of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """What is kept of a key. Times are UTC with a time zone; ``name`` says what the key is for."""

    digest: str
    prefix: str
    tenant_id: str
    roles: tuple[str, ...]
    name: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None

    @classmethod
    def of(
        cls,
        key: str,
        *,
        tenant_id: str,
        roles: tuple[str, ...],
        name: str = "",
        expires_at: datetime | None = None,
    ) -> Self:
        """What is kept of a new key."""
        return cls(
            digest=digest_of(key),
            prefix=key[:_PREFIX_LENGTH],
            tenant_id=tenant_id,
            roles=roles,
            name=name,
            created_at=datetime.now(UTC),
            expires_at=expires_at,
        )

    def state(self, now: datetime) -> str:
        """``active``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and now >= self.expires_at else "active"

    def as_json(self) -> dict[str, Any]:
        """As it is kept: times as RFC 3339."""
        return {
            name: value.isoformat() if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, raw: object) -> Self:
        """Raises InvalidKeys for anything that `as_json` does not make."""
        if not isinstance(raw, Mapping):
            raise InvalidKeys("an entry is no object")
        # No more than a prefix of anything: somebody may have put a whole key there.
        where = f"entry {str(raw.get('prefix'))[:_PREFIX_LENGTH]!r}"
        if unknown := raw.keys() - {field.name for field in fields(cls)}:
            raise InvalidKeys(f"{where} has an unknown field {min(unknown)[:_PREFIX_LENGTH]!r}")
        digest, prefix, tenant_id = raw.get("digest"), raw.get("prefix"), raw.get("tenant_id")
        roles, name = raw.get("roles"), raw.get("name", "")
        for field, value, pattern in (
            ("digest", digest, _DIGEST),
            ("prefix", prefix, PREFIX_PATTERN),
            ("tenant_id", tenant_id, TENANT_PATTERN),
        ):
            if not isinstance(value, str) or not pattern.fullmatch(value):
                raise InvalidKeys(f"{where} has no valid {field}")
        if not isinstance(roles, list) or not all(
            isinstance(role, str) and ROLE_PATTERN.fullmatch(role) for role in roles
        ):
            raise InvalidKeys(f"{where} has no valid roles")
        created_at = _time(raw, "created_at", where)
        if created_at is None or not isinstance(name, str):
            raise InvalidKeys(f"{where} has no valid {'name' if created_at else 'created_at'}")
        return cls(
            digest=str(digest),
            prefix=str(prefix),
            tenant_id=str(tenant_id),
            roles=tuple(roles),
            name=name,
            created_at=created_at,
            expires_at=_time(raw, "expires_at", where),
            revoked_at=_time(raw, "revoked_at", where),
        )


def _time(raw: Mapping[str, object], field: str, where: str) -> datetime | None:
    value = raw.get(field)
    if value is None:
        return None
    try:
        time = datetime.fromisoformat(str(value))
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise InvalidKeys(f"{where} has no valid {field}: a time such as 2030-01-31T00:00:00+00:00")
    return time


def encode(keys: Mapping[str, ApiKey]) -> bytes:
    """A file of keys, for `decode`; readable, and the same for the same keys."""
    return json.dumps_readable({"keys": [key.as_json() for key in keys.values()]})


def decode(content: bytes) -> dict[str, ApiKey]:
    """The keys of a file, by digest. Raises InvalidKeys."""
    try:
        raw = json.loads(content)
    except json.Unreadable as error:
        raise InvalidKeys(f"is not JSON: {error}") from None
    entries = raw.get("keys") if isinstance(raw, dict) else None
    if not isinstance(entries, list):
        raise InvalidKeys('is not {"keys": [...]}')
    keys: dict[str, ApiKey] = {}
    for key in map(ApiKey.from_json, entries):
        # One of the two may be revoked: which of them counts is nobody's guess.
        if key.digest in keys:
            raise InvalidKeys(f"entry {key.prefix!r} is there twice")
        keys[key.digest] = key
    return keys


class KeySource(Protocol):
    """Where keys are kept."""

    def find(self, digest: str) -> ApiKey | None:
        """What is kept under a digest, in whatever state. Raises SourceUnavailable."""
        ...


class FileKeys:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, decode)

    def find(self, digest: str) -> ApiKey | None:
        """See `KeySource`."""
        return self._file.read().get(digest)


class BucketKeys:
    """The fleet's keys in the bucket."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def find(self, digest: str) -> ApiKey | None:
        """See `KeySource`."""
        entry = read_entry(self._bridge, BUCKET, digest)
        if entry is None:
            return None
        try:
            return ApiKey.from_json(json.loads(entry.value))
        except ValueError as error:
            raise SourceUnavailable(f"{BUCKET}: {error}") from None
