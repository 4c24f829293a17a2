"""Roles → permissions: a TOML document that a person can read, from a file or from the bucket ``BEAMLINE_ROLES``."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final, Protocol

from bridge import Bridge
from gateway.access.permissions import Permission
from gateway.sources import SourceUnavailable, WatchedFile, read_entry

Roles = Mapping[str, frozenset[Permission]]

BUCKET: Final = "BEAMLINE_ROLES"
KEY: Final = "roles"
"""The bucket's one key: the whole document, so that a change is applied at once or not at all."""
ROLE_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
LARGEST_DOCUMENT: Final = 256 * 1024
_FIELDS: Final = frozenset({"description", "permissions"})


class InvalidRoles(ValueError):
    """The document cannot be used. ``problems`` holds a sentence for each thing that is wrong."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def parse(document: bytes) -> Roles:
    """The roles of a document. Raises InvalidRoles with everything that is wrong: a misspelt permission must not
    silently be one less."""
    if len(document) > LARGEST_DOCUMENT:
        raise InvalidRoles([f"is larger than {LARGEST_DOCUMENT} bytes"])
    try:
        raw = tomllib.loads(document.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # tomllib's own, and that of a very long number
        raise InvalidRoles([f"is not TOML: {error}"]) from None
    if problems := list(_problems(raw)):
        raise InvalidRoles(problems)
    return {role: frozenset(map(Permission, entry["permissions"])) for role, entry in raw.items()}


def _problems(raw: Mapping[str, object]) -> Iterator[str]:
    if not raw:
        yield "has no roles"
    known = frozenset(Permission)
    for role, entry in raw.items():
        if not ROLE_PATTERN.fullmatch(role):
            yield f"[{role!r}]: a role is named by 1 to 64 of A-Z a-z 0-9 _ . : -"
        if not isinstance(entry, dict):
            yield f"{role}: must be a table such as [{role}]"
            continue
        for field in sorted(entry.keys() - _FIELDS):
            yield f"[{role}] has an unknown field {field!r}"
        permissions = entry.get("permissions")
        if not isinstance(permissions, list):
            yield f"[{role}] needs permissions, a list"
            continue
        for permission in permissions:
            if not isinstance(permission, str) or permission not in known:
                yield f"[{role}] has an unknown permission {permission!r}; there are {', '.join(known)}"


def default_document() -> bytes:
    """The document that comes with the gateway: admin, operator, service, viewer."""
    return resources.files("gateway.access").joinpath("roles.toml").read_bytes()


class PermissionSource(Protocol):
    """Where roles are kept."""

    def roles(self) -> Roles:
        """All roles, as they are now. Raises SourceUnavailable."""
        ...


class FileRoles:
    """A file on this machine; None: the one that comes with the gateway."""

    def __init__(self, path: Path | None) -> None:
        self._default: Roles | None = None if path else parse(default_document())
        self._file = WatchedFile(path, parse) if path else None

    def roles(self) -> Roles:
        """See `PermissionSource`."""
        if self._file is not None:
            return self._file.read()
        assert self._default is not None
        return self._default


class BucketRoles:
    """The fleet's document in the bucket. An empty bucket holds no role: nobody may do anything."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def roles(self) -> Roles:
        """See `PermissionSource`."""
        entry = read_entry(self._bridge, BUCKET, KEY)
        try:
            return {} if entry is None else parse(entry.value)
        except InvalidRoles as error:
            raise SourceUnavailable(f"{BUCKET}: {error}") from None
