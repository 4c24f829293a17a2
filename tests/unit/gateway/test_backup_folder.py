"""A backup's folder: what is not as it was written is told before anything is begun with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge import Snapshot
from gateway.operator import backup_folder
from gateway.operator.backup_folder import Damaged, Kept, Writing
from gateway.operator.files import FileUnavailable

STREAM = "BEAMLINE_EXEC"
CONTENT = (b"one", b"two" * 50_000, b"three")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole backup of one stream."""
    folder = tmp_path / "backup"
    backup_folder.make(folder)
    with Writing(folder, STREAM) as writing:
        for chunk in CONTENT:
            writing.write(chunk)
    snapshot = Snapshot({"name": STREAM, "max_age": 5}, {"messages": 3, "last_seq": 7})
    backup_folder.write_manifest(folder, [writing.kept(snapshot)])
    return folder


def only(folder: Path) -> Kept:
    [kept] = backup_folder.read_manifest(folder)
    return kept


def test_what_was_written_is_read(folder: Path) -> None:
    kept = only(folder)
    backup_folder.check(folder, kept)
    assert b"".join(backup_folder.chunks(folder, kept)) == b"".join(CONTENT)
    assert (kept.stream, kept.messages, kept.bytes) == (STREAM, 3, 150_008)
    assert kept.snapshot.config["max_age"] == 5
    assert {path.name for path in folder.iterdir()} == {"manifest.json", f"{STREAM}.snapshot"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(file.read_bytes() + b"x"),
        lambda file: file.write_bytes(b"O" + file.read_bytes()[1:]),
        lambda file: file.unlink(),
    ],
    ids=["shorter", "longer", "other", "missing"],
)
def test_a_file_that_is_not_as_it_was_is_damaged(
    folder: Path, spoil: Callable[[Path], object]
) -> None:
    kept = only(folder)
    spoil(folder / kept.file)
    with pytest.raises(Damaged, match=STREAM):
        backup_folder.check(folder, kept)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"streams": None},
        {"streams": [{}]},
        {"streams": [{"file": "../../etc/passwd"}]},
        {"streams": [{"config": {"name": "ANOTHER"}}]},
    ],
    ids=lambda change: str(change),
)
def test_a_manifest_that_says_something_else_is_refused(
    folder: Path, change: dict[str, Any]
) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    for name, value in change.items():
        if isinstance(value, list) and value[0]:
            value = [{**document["streams"][0], **value[0]}]
        document[name] = value
    path.write_text(json.dumps(document))
    with pytest.raises(Damaged):
        backup_folder.read_manifest(folder)


def test_without_a_manifest_it_is_no_backup(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    with pytest.raises(Damaged, match="no whole backup"):
        backup_folder.read_manifest(folder)


def test_a_folder_that_holds_something_is_not_taken(folder: Path) -> None:
    with pytest.raises(FileUnavailable, match="not empty"):
        backup_folder.make(folder)
