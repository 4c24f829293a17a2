"""A backup as a folder: a file a stream, and ``manifest.json``, which is written last and says what each must be.

::

    manifest.json          {"format": 1, "made_at", "made_by", "streams": [{"stream", "file", "bytes", "sha256",
                            "taken_at", "config", "state"}, …]}
    BEAMLINE_EXEC.snapshot  what the server sent, as it came
    …

A folder without a manifest is no backup: the command that made it did not end in order. What is in the files is what
is in NATS (payloads, digests of keys): only its owner may read the folder.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bridge import Snapshot
from gateway import json
from gateway.operator.files import OWNER_ONLY, FileUnavailable, sync_folder

MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_READ_BYTES: Final = 64 * 1024
"""How much is read, and sent, at a time; less than a message may hold."""


class Damaged(Exception):
    """It is no backup, or not what its manifest says; the text names what."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One stream of a backup."""

    stream: str
    file: str
    bytes: int
    sha256: str
    taken_at: str
    snapshot: Snapshot

    @property
    def messages(self) -> int:
        return int(self.snapshot.state["messages"])


class Writing:
    """The file of one stream while it is written; on the disk, and counted, when the block ends."""

    def __init__(self, folder: Path, stream: str) -> None:
        self._path = folder / f"{stream}.snapshot"
        self._stream = stream
        self._digest = hashlib.sha256()
        self.bytes = 0

    def __enter__(self) -> Self:
        self.taken_at = now()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.fdopen(os.open(self._path, flags, OWNER_ONLY), "wb")
        return self

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)
        self._digest.update(chunk)
        self.bytes += len(chunk)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def kept(self, snapshot: Snapshot) -> Kept:
        """What the manifest says of it."""
        return Kept(
            self._stream,
            self._path.name,
            self.bytes,
            self._digest.hexdigest(),
            self.taken_at,
            snapshot,
        )


def make(folder: Path) -> None:
    """Make the folder, or take one that is empty. Raises FileUnavailable."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileUnavailable(f"{folder} is not empty; a backup goes into a folder of its own")
    except OSError as error:
        raise FileUnavailable(f"{folder} cannot be made: {error.strerror}") from None


def write_manifest(folder: Path, streams: list[Kept]) -> None:
    """Say what is there; after this it is a backup. Raises OSError."""
    document = {
        "format": _FORMAT,
        "made_at": now(),
        "made_by": f"beamline-gateway {version('beamline-gateway')}",
        "streams": [
            {
                "stream": kept.stream,
                "file": kept.file,
                "bytes": kept.bytes,
                "sha256": kept.sha256,
                "taken_at": kept.taken_at,
                "config": dict(kept.snapshot.config),
                "state": dict(kept.snapshot.state),
            }
            for kept in streams
        ],
    }
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    new = folder / f"{MANIFEST}.new"
    with os.fdopen(os.open(new, flags, OWNER_ONLY), "wb") as file:
        file.write(json.dumps_readable(document))
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / MANIFEST)
    sync_folder(folder)


def read_manifest(folder: Path) -> list[Kept]:
    """The streams of a backup, in the order in which they were taken. Raises Damaged, FileUnavailable."""
    path = folder / MANIFEST
    try:
        document = json.loads(path.read_bytes())
        if document["format"] != _FORMAT:
            raise Damaged(f"{path} is of format {document['format']}, this version reads {_FORMAT}")
        return [_kept(entry) for entry in document["streams"]]
    except FileNotFoundError:
        raise Damaged(f"{folder} is no whole backup: there is no {MANIFEST}") from None
    except OSError as error:
        raise FileUnavailable(f"{path} cannot be read: {error.strerror}") from None
    except (json.Unreadable, KeyError, TypeError, ValueError):
        raise Damaged(f"{path} is not what `backup` writes") from None


def check(folder: Path, kept: Kept) -> None:
    """Read the file of a stream once, whole. Raises Damaged, FileUnavailable."""
    digest = hashlib.sha256()
    for chunk in chunks(folder, kept):
        digest.update(chunk)
    if digest.hexdigest() != kept.sha256:
        raise Damaged(
            f"{folder / kept.file} has changed since it was written (its SHA-256 differs)"
        )


def chunks(folder: Path, kept: Kept) -> Iterator[bytes]:
    """What was written, piece by piece. Raises Damaged, FileUnavailable."""
    path = folder / kept.file
    try:
        with path.open("rb") as file:
            while chunk := file.read(_READ_BYTES):
                yield chunk
    except FileNotFoundError:
        raise Damaged(f"{path} is missing") from None
    except OSError as error:
        raise FileUnavailable(f"{path} cannot be read: {error.strerror}") from None


def now() -> str:
    """The time, for people."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _kept(entry: Mapping[str, Any]) -> Kept:
    if Path(entry["file"]).name != entry["file"]:
        raise ValueError("a file elsewhere")
    if entry["config"]["name"] != entry["stream"]:
        raise ValueError("the configuration of another stream")
    snapshot = Snapshot(entry["config"], entry["state"])
    return Kept(
        str(entry["stream"]),
        str(entry["file"]),
        int(entry["bytes"]),
        str(entry["sha256"]),
        str(entry["taken_at"]),
        snapshot,
    )
