"""API keys and roles as operators make them, in files and in the gateway's buckets.

The formats are the product's own (`gateway.identity.keys`, `gateway.access.roles`); what a test says is who has what.
"""

from __future__ import annotations

import abc
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from gateway.access.roles import BUCKET as ROLES_BUCKET
from gateway.access.roles import KEY as ROLES_KEY
from gateway.access.roles import default_document
from gateway.identity.keys import BUCKET as KEYS_BUCKET
from gateway.identity.keys import ApiKey, encode, new_key
from gateway.identity.keys import digest_of as digest_of
from tests.support.nats_session import NatsSession

DEFAULT_ROLES: Final = default_document()
#: What the gateway asks NATS when it looks a key or the roles up.
KEY_LOOKUPS: Final = f"$JS.API.STREAM.MSG.GET.KV_{KEYS_BUCKET}"
ROLE_LOOKUPS: Final = f"$JS.API.STREAM.MSG.GET.KV_{ROLES_BUCKET}"


def bearer(credential: str) -> dict[str, str]:
    """The header that presents a key or a token."""
    return {"Authorization": f"Bearer {credential}"}


def nobodys_key() -> str:
    """What looks like a key, and was never kept anywhere."""
    return new_key()


class _Keys(abc.ABC):
    """What an operator can do, wherever keys are kept."""

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}

    def make(
        self, tenant: str, *roles: str, expires_at: datetime | None = None, revoked: bool = False
    ) -> str:
        """A new key, which only the caller knows."""
        key = new_key()
        kept = ApiKey.of(key, tenant_id=tenant, roles=roles, expires_at=expires_at)
        self._store(replace(kept, revoked_at=datetime.now(UTC)) if revoked else kept)
        return key

    def revoke(self, key: str) -> None:
        self._store(replace(self._keys[digest_of(key)], revoked_at=datetime.now(UTC)))

    def _store(self, key: ApiKey) -> None:
        self._keys[key.digest] = key
        self._write(key)

    @abc.abstractmethod
    def _write(self, key: ApiKey) -> None: ...


class KeyFile(_Keys):
    """``APIKEYS_FILE``: every change replaces it whole, as the operators' command does."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.path = folder / "apikeys.json"
        self.restore()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AUTH_MODE": "api_key",
            "APIKEYS_SOURCE": "file",
            "APIKEYS_FILE": str(self.path),
        }

    def replace_by(self, content: bytes) -> None:
        """Anything else in its place."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(content)
        fresh.replace(self.path)

    def restore(self) -> None:
        """What belongs there."""
        self.replace_by(encode(self._keys))

    def _write(self, key: ApiKey) -> None:
        self.restore()


class KeyBucket(_Keys):
    """The bucket ``BEAMLINE_APIKEYS``, made as operators' commands make it.

    A gateway only reads it, and is not ready before it is there: make this first.
    """

    environment: Final[Mapping[str, str]] = {"AUTH_MODE": "api_key", "APIKEYS_SOURCE": "bucket"}

    def __init__(self, session: NatsSession) -> None:
        super().__init__()
        self._session = session
        make_bucket(session, KEYS_BUCKET)

    def put(self, key: str, entry: bytes) -> None:
        """Any bytes as what is kept of a key."""
        put(self._session, f"$KV.{KEYS_BUCKET}.{digest_of(key)}", entry)

    def _write(self, key: ApiKey) -> None:
        entry = json.dumps(key.as_json()).encode()
        put(self._session, f"$KV.{KEYS_BUCKET}.{key.digest}", entry)


def put_roles(session: NatsSession, document: bytes) -> None:
    """Replace the fleet's roles; the first time before a gateway has to be ready, which only reads them."""
    make_bucket(session, ROLES_BUCKET)
    put(session, f"$KV.{ROLES_BUCKET}.{ROLES_KEY}", document)


def make_bucket(session: NatsSession, name: str) -> None:
    """A key/value bucket, unless it is there."""
    session.call(session.jetstream.create_key_value(bucket=name))


def put(session: NatsSession, subject: str, value: bytes) -> None:
    """Write a bucket's entry; stored when it returns."""
    session.call(session.jetstream.publish(subject, value))


def roles_document(roles: Mapping[str, Sequence[str]]) -> bytes:
    """A document of these roles and their permissions."""
    tables = (
        f"[{role}]\npermissions = [{', '.join(repr(one) for one in permissions)}]\n"
        for role, permissions in roles.items()
    )
    return "\n".join(tables).encode()
