"""The audit log: what operators did, when, and to which tenant. A JSON object a line.

::

    {"at", "id", "who": {"user", "uid", "sudo_user"?, "host"}, "action", "tenant_id", "target", "details", "outcome"}

An act has two lines with one ``id``: ``started`` is on the disk before anything is done, and where it cannot be,
nothing is done; the outcome follows, ``done``, ``failed``, or ``unknown`` where no answer came. A ``started`` alone is
a command that was killed. ``target`` is a key's prefix, the digest of a document of roles, the stream and sequence of a
dead letter, or the key of a session's mapping: a session's own value may be personal data and is never written, nor is
a key, a payload or a credential. ``tenant_id`` is null for what concerns all.

Lines are only ever appended, under a lock. ``user`` is who runs the command, as the system has it; ``sudo_user`` is
what the environment says, which whoever runs the command could change.
"""

from __future__ import annotations

import os
import pwd
import secrets
import socket
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click

from bridge import BridgeError, Unknown
from gateway import json
from gateway.operator.bus import AUDIT_INCOMPLETE, AUDIT_UNAVAILABLE, fail
from gateway.operator.files import (
    OWNER_ONLY,
    FileUnavailable,
    sync_folder,
    wait_for_lock,
)
from gateway.settings import Settings

_LONGEST_TEXT: Final = 256


class AuditUnavailable(Exception):
    """The log cannot be written; the text says why, and that the act was not done."""


class AuditLog:
    """Writes down acts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._who = _who()
        self.complete = True
        """False once the outcome of an act could not be written."""

    @contextmanager
    def act(
        self,
        action: str,
        *,
        tenant_id: str | None,
        target: str,
        details: Mapping[str, Any] | None = None,
    ) -> Iterator[dict[str, Any]]:
        """The block is the act; what it puts into the yielded dict becomes part of the outcome's details.

        Raises AuditUnavailable before anything is done. That an outcome cannot be written is said at once, and
        remembered in ``complete``.
        """
        record = {
            "id": secrets.token_hex(8),
            "who": self._who,
            "action": action,
            "tenant_id": None if tenant_id is None else _short(tenant_id),
            "target": _short(target),
        }
        told = {name: _told(value) for name, value in (details or {}).items()}
        try:
            _append(self._path, {**record, "details": told, "outcome": "started"})
        except OSError as error:
            raise AuditUnavailable(
                f"AUDIT_LOG_FILE {self._path} cannot be written ({error.strerror}), so {action} {target} was not done"
            ) from None
        came_of_it: dict[str, Any] = {}
        outcome = "unknown"  # Ctrl-C, too
        try:
            yield came_of_it
            outcome = "done"
        except Unknown as error:
            came_of_it["error"] = str(error)
            raise
        except (Exception, SystemExit) as error:
            outcome = "failed"
            # The texts of these are made to be read by anybody; that of another may hold anything.
            is_safe = isinstance(error, BridgeError | FileUnavailable)
            came_of_it["error"] = str(error) if is_safe else type(error).__name__
            raise
        finally:
            told |= {name: _told(value) for name, value in came_of_it.items()}
            self._close(record, told, outcome)

    def _close(self, record: Mapping[str, Any], told: Mapping[str, Any], outcome: str) -> None:
        try:
            _append(self._path, {**record, "details": told, "outcome": outcome})
        except OSError as error:
            self.complete = False
            sentence = (
                f"AUDIT_LOG_FILE {self._path} cannot be written ({error.strerror}): it does not say that"
                f" {record['action']} {record['target']} is {outcome}"
            )
            click.echo(sentence, err=True)


@contextmanager
def audit_log(settings: Settings) -> Iterator[AuditLog]:
    """The log for a command's acts; ends the process when one could not be written down (`gateway.operator.bus`)."""
    log = AuditLog(settings.audit_log_file)
    try:
        yield log
    except AuditUnavailable as error:
        fail(str(error), AUDIT_UNAVAILABLE)
    if not log.complete:
        raise SystemExit(AUDIT_INCOMPLETE)


def records(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The log's lines, oldest first, each with its record; None: a line that is none. Raises OSError."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for line in file:
            yield line.rstrip("\n"), _record(line)


def _record(line: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except json.Unreadable:
        return None
    fields = {"at", "id", "who", "action", "tenant_id", "target", "details", "outcome"}
    known = isinstance(record, dict) and fields <= record.keys()
    return (
        record
        if known and isinstance(record["who"], dict) and isinstance(record["id"], str)
        else None
    )


def _append(path: Path, record: Mapping[str, Any]) -> None:
    """Add a line and have it on the disk. All of it or nothing: raises OSError with the log as it was."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK
    log = os.open(path, flags, OWNER_ONLY)
    try:
        if not stat.S_ISREG(os.fstat(log).st_mode):
            raise OSError(0, "it is no regular file")
        wait_for_lock(log)
        # Under the lock, so that the times in the log never go back further than the clock does.
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"at": at, **record}) + b"\n"
        size = os.fstat(log).st_size
        if size and os.pread(log, 1, size - 1) != b"\n":
            line = (
                b"\n" + line
            )  # the last one was cut off by a power failure: it stays the only one
        try:
            if os.write(log, line) < len(line):
                raise OSError(0, "the disk is full")
            os.fsync(log)
            if size == 0:
                sync_folder(path.absolute().parent)
        except OSError:
            os.ftruncate(log, size)
            raise
    finally:
        os.close(log)


def _who() -> dict[str, Any]:
    uid = os.getuid()
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:  # a container's, perhaps
        user = str(uid)
    who: dict[str, Any] = {"user": user, "uid": uid}
    if sudo_user := os.environ.get("SUDO_USER"):
        who["sudo_user"] = _short(sudo_user)
    return {**who, "host": socket.gethostname()}


def _told(value: Any) -> Any:
    return _short(value) if isinstance(value, str) else value


def _short(text: str) -> str:
    """Bounded, and UTF-8 whatever the environment or the command line held."""
    return text.encode("utf-8", "replace").decode()[:_LONGEST_TEXT]
