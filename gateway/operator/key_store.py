"""Where keys are kept, as operators change it: one more, one revoked, never one lost to another operator.

The gateway's side, which only reads, is `gateway.identity.keys`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from bridge import Bus, Entry, Refusal, Refused, Taken
from gateway import json
from gateway.identity import keys
from gateway.identity.keys import ApiKey, InvalidKeys
from gateway.operator import files
from gateway.operator.bus import Needs, Run, operator_bus
from gateway.operator.files import FileUnavailable
from gateway.settings import Settings

NEEDS: Final = Needs(buckets=(keys.BUCKET,))
_SECONDS: Final = 10.0


class Gone(Exception):
    """The key is not there any more: somebody else removed it."""


@dataclass(frozen=True, slots=True)
class Kept:
    """All keys, the oldest first, and a sentence for each entry that is none."""

    keys: tuple[ApiKey, ...]
    problems: tuple[str, ...] = ()


class KeyStore(Protocol):
    """Raises FileUnavailable or BridgeError from everything."""

    def read(self) -> Kept:
        """All keys, in whatever state."""
        ...

    def add(self, key: ApiKey) -> None:
        """One more."""
        ...

    def revoke(self, key: ApiKey, at: datetime) -> None:
        """Say of a key that it is revoked since ``at``, unless somebody else was first. Raises Gone."""
        ...


@contextmanager
def key_store(settings: Settings) -> Iterator[KeyStore]:
    """The store that the settings name. Ends the process when NATS is not there."""
    if settings.apikeys_source == "file":
        yield FileStore(settings.apikeys_file)
        return
    with operator_bus(settings, NEEDS) as run:
        yield BucketStore(run)


class FileStore:
    """``APIKEYS_FILE``: read, changed and replaced under a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Kept:
        """See `KeyStore`. No file holds no keys."""
        return Kept(_oldest_first(self._decoded(files.read(self._path)).values()))

    def add(self, key: ApiKey) -> None:
        """See `KeyStore`."""
        with files.locked(self._path) as path:
            there = self._decoded(files.read(path))
            files.replace(path, keys.encode({**there, key.digest: key}))

    def revoke(self, key: ApiKey, at: datetime) -> None:
        """See `KeyStore`."""
        with files.locked(self._path) as path:
            there = self._decoded(files.read(path))
            now = there.get(key.digest)
            if now is None:
                raise Gone
            if now.revoked_at is None:
                there[key.digest] = replace(now, revoked_at=at)
                files.replace(path, keys.encode(there))

    def _decoded(self, content: bytes | None) -> dict[str, ApiKey]:
        try:
            return {} if content is None else keys.decode(content)
        except InvalidKeys as error:
            # Written anew without what cannot be read, it would lose keys.
            raise FileUnavailable(f"{self._path} {error}; mend it or move it away") from None


class BucketStore:
    """The bucket ``BEAMLINE_APIKEYS``: an entry a key, created once, changed by compare-and-set."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def read(self) -> Kept:
        """See `KeyStore`."""

        async def work(bus: Bus) -> list[Entry]:
            return await bus.bucket(keys.BUCKET).entries(">", deadline=_deadline())

        found, problems = [], []
        for entry in self._run(work):
            try:
                found.append(_decode(entry.value))
            except ValueError as error:
                problems.append(f"{keys.BUCKET}: {error} (revision {entry.revision})")
        return Kept(_oldest_first(found), tuple(problems))

    def add(self, key: ApiKey) -> None:
        """See `KeyStore`."""
        value = json.dumps(key.as_json())

        async def work(bus: Bus) -> None:
            try:
                await bus.bucket(keys.BUCKET).create(key.digest, value, deadline=_deadline())
            except Taken as error:
                # One's own, where the connection was lost between the write and its acknowledgement.
                if error.entry is None or error.entry.value != value:
                    raise

        self._run(work)

    def revoke(self, key: ApiKey, at: datetime) -> None:
        """See `KeyStore`."""

        async def work(bus: Bus) -> None:
            bucket, deadline = bus.bucket(keys.BUCKET), _deadline()
            while True:
                entry = await bucket.get(key.digest, deadline=deadline)
                if entry is None:
                    raise Gone
                now = _decode(entry.value)
                if now.revoked_at is not None:
                    return
                value = json.dumps(replace(now, revoked_at=at).as_json())
                try:
                    await bucket.update(key.digest, value, entry.revision, deadline=deadline)
                except Refused as error:
                    # Changed meanwhile, by another operator or by this very write: look again.
                    if error.reason is not Refusal.REVISION or time.monotonic() > deadline:
                        raise
                else:
                    return

        try:
            self._run(work)
        except ValueError:  # somebody wrote over it what is no key
            raise Gone from None


def _decode(value: bytes) -> ApiKey:
    """Raises ValueError: InvalidKeys, or what is not even JSON."""
    return ApiKey.from_json(json.loads(value))


def _oldest_first(found: Iterable[ApiKey]) -> tuple[ApiKey, ...]:
    return tuple(sorted(found, key=lambda key: key.created_at))


def _deadline() -> float:
    return time.monotonic() + _SECONDS
