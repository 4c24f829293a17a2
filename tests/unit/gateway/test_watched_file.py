"""WatchedFile: the file as it is now, or nothing at all."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from gateway.sources import SourceUnavailable, WatchedFile


class Parsing:
    """A parser that counts."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, content: bytes) -> str:
        self.count += 1
        if content.startswith(b"broken"):
            raise ValueError("is broken")
        return content.decode()


@pytest.fixture
def parsing() -> Parsing:
    return Parsing()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "roles.toml"
    path.write_text("old")
    return path


def settle(path: Path, seconds_ago: float = 60.0) -> None:
    """Let the file look as if it had been written a while ago."""
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def test_a_changed_file_is_read_again(path: Path, parsing: Parsing) -> None:
    file = WatchedFile(path, parsing)
    assert file.read() == "old"
    path.write_text("newer")
    assert file.read() == "newer"


def test_a_replaced_file_is_read_again_whatever_its_times_and_size_say(
    path: Path, parsing: Parsing
) -> None:
    file = WatchedFile(path, parsing)
    settle(path)
    assert file.read() == "old"
    before = path.stat()
    fresh = path.with_suffix(".new")
    fresh.write_text("new")
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(path)
    assert file.read() == "new"


def test_a_file_written_twice_within_a_tick_of_its_clock_is_read_again(
    path: Path, parsing: Parsing
) -> None:
    """Same inode, same size, and times that a coarse clock cannot tell apart: a young file is not trusted."""
    file = WatchedFile(path, parsing)
    for number in range(200):
        path.write_text(f"{number:03}")
        assert file.read() == f"{number:03}"
    parsed = parsing.count
    file.read()
    assert parsing.count == parsed + 1


def test_a_file_that_has_not_changed_for_a_while_is_read_once(parsing: Parsing) -> None:
    file = WatchedFile(Path(__file__), parsing)
    assert file.read() == file.read()
    assert parsing.count == 1


def test_a_file_with_its_time_put_back_is_read_again(path: Path, parsing: Parsing) -> None:
    file = WatchedFile(path, parsing)
    settle(path)
    before = path.stat()
    assert file.read() == "old"
    path.write_text("new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.read() == "new"


def test_a_broken_file_is_no_answer_and_neither_is_what_it_held_before(
    path: Path, parsing: Parsing
) -> None:
    file = WatchedFile(path, parsing)
    file.read()
    path.write_text("broken")
    for _ in range(2):
        with pytest.raises(SourceUnavailable, match=r"roles\.toml: is broken"):
            file.read()
    path.write_text("good")
    assert file.read() == "good"


def test_a_missing_file_is_no_answer_and_works_at_once_when_it_is_back(
    path: Path, parsing: Parsing
) -> None:
    file = WatchedFile(path, parsing)
    file.read()
    path.rename(path.with_suffix(".away"))
    with pytest.raises(SourceUnavailable, match="No such file"):
        file.read()
    path.with_suffix(".away").rename(path)
    assert file.read() == "old"


def test_a_folder_in_its_place_is_no_answer(tmp_path: Path, parsing: Parsing) -> None:
    with pytest.raises(SourceUnavailable):
        WatchedFile(tmp_path, parsing).read()


def test_the_error_does_not_tell_where_the_file_is(tmp_path: Path, parsing: Parsing) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        WatchedFile(tmp_path / "keys.json", parsing).read()
    assert str(tmp_path) not in str(caught.value)
