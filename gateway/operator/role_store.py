"""Where roles are kept, as operators change it: the whole document at once, and only the one that was looked at.

The gateway's side, which only reads, is `gateway.access.roles`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from bridge import Bus, Entry, Refusal, Refused, Taken
from gateway.access import roles
from gateway.access.roles import InvalidRoles, Roles
from gateway.operator import files
from gateway.operator.bus import Needs, Run, operator_bus
from gateway.operator.files import FileUnavailable
from gateway.settings import Settings

NEEDS: Final = Needs(buckets=(roles.BUCKET,))
_SECONDS: Final = 10.0


class Changed(Exception):
    """The document is not the one that was read any more; nothing was written."""


@dataclass(frozen=True, slots=True)
class InForce:
    """What is in force: the document (None: there is none), and the roles in it (None: it cannot be read as roles,
    ``problems`` say why, and the gateway answers everybody 503). ``origin`` is for people."""

    origin: str
    document: bytes | None
    roles: Roles | None
    problems: tuple[str, ...] = ()
    revision: int = 0


class RoleStore(Protocol):
    """Raises BridgeError from everything."""

    def read(self) -> InForce:
        """What is in force now."""
        ...

    def replace(self, document: bytes, before: InForce) -> None:
        """Put a document in the place of ``before``. Raises Changed, and FileUnavailable."""
        ...


@contextmanager
def role_store(settings: Settings) -> Iterator[RoleStore]:
    """The store that the settings name. Ends the process when NATS is not there."""
    if settings.roles_source == "bucket":
        with operator_bus(settings, NEEDS) as run:
            yield BucketStore(run)
    elif settings.roles_file is not None:
        yield FileStore(settings.roles_file)
    else:
        yield Default()


class Default:
    """The document that comes with the gateway."""

    def read(self) -> InForce:
        """See `RoleStore`."""
        origin = "the roles that come with the gateway (neither ROLES_FILE nor ROLES_SOURCE=bucket is set)"
        return _in_force(origin, roles.default_document())

    def replace(self, document: bytes, before: InForce) -> None:
        """See `RoleStore`; there is no place for it."""
        raise FileUnavailable("nowhere to put it: set ROLES_FILE or ROLES_SOURCE=bucket")


class FileStore:
    """``ROLES_FILE``, replaced under a lock."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> InForce:
        """See `RoleStore`."""
        origin = f"{self._path} (ROLES_FILE)"
        try:
            return _in_force(origin, files.read(self._path))
        except FileUnavailable as error:
            return InForce(origin, None, None, (str(error),))

    def replace(self, document: bytes, before: InForce) -> None:
        """See `RoleStore`."""
        with files.locked(self._path) as path:
            if files.read(path) != before.document:
                raise Changed
            files.replace(path, document)


class BucketStore:
    """The bucket ``BEAMLINE_ROLES``: one key, one compare-and-set write."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def read(self) -> InForce:
        """See `RoleStore`. Without an entry nobody may do anything."""

        async def work(bus: Bus) -> Entry | None:
            return await bus.bucket(roles.BUCKET).get(roles.KEY, deadline=_deadline())

        entry = self._run(work)
        origin = f"the bucket {roles.BUCKET}"
        if entry is None:
            return InForce(origin, None, {})
        return _in_force(origin, entry.value, entry.revision)

    def replace(self, document: bytes, before: InForce) -> None:
        """See `RoleStore`."""

        async def work(bus: Bus) -> None:
            bucket, deadline = bus.bucket(roles.BUCKET), _deadline()
            try:
                if before.document is None:
                    await bucket.create(roles.KEY, document, deadline=deadline)
                else:
                    await bucket.update(roles.KEY, document, before.revision, deadline=deadline)
            except Refused as error:
                if error.reason is not Refusal.REVISION:
                    raise
                # One's own, where the connection was lost between the write and its acknowledgement.
                there = (
                    error.entry
                    if isinstance(error, Taken)
                    else await bucket.get(roles.KEY, deadline=deadline)
                )
                if there is None or there.value != document:
                    raise Changed from None

        self._run(work)


def _in_force(origin: str, document: bytes | None, revision: int = 0) -> InForce:
    if document is None:
        return InForce(origin, None, None, ("there is no such file",), revision)
    try:
        return InForce(origin, document, roles.parse(document), (), revision)
    except InvalidRoles as error:
        return InForce(origin, document, None, tuple(error.problems), revision)


def _deadline() -> float:
    return time.monotonic() + _SECONDS
