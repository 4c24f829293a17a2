"""How log lines leave the process: whole and in order, and without ever making anybody wait."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway.telemetry.logging.writer import DirectLines, Lines, QueuedLines
from tests.support.waiting import GENEROUS_SECONDS, wait_until

ROOT: Final = Path(__file__).parents[3]
_AT_ONCE_SECONDS: Final = 2.0
"""For thousands of lines that a pipe does not take; one that waits for its reader waits for ever."""


class Pipe:
    """A pipe as stderr is one, and its reader."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._is_read = True

    def fill(self) -> int:
        """Write until it takes no more, as a reader that has stopped lets it come to. How many bytes."""
        os.set_blocking(self.writer, False)
        written = 0
        try:
            while True:
                written += os.write(self.writer, b"." * 4096)
        except BlockingIOError:
            return written
        finally:
            os.set_blocking(self.writer, True)

    def read(self, count: int) -> bytes:
        content = b""
        while len(content) < count and (piece := os.read(self.reader, count - len(content))):
            content += piece
        return content

    def read_until(self, end: bytes) -> bytes:
        content = b""
        while end not in content:
            content += os.read(self.reader, 65536)
        return content

    def stop_reading(self) -> None:
        os.close(self.reader)
        self._is_read = False

    def close(self) -> None:
        os.close(self.writer)
        if self._is_read:
            self.stop_reading()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    pipe.close()


def notice(lost: int) -> bytes:
    return b"%d lost\n" % lost


class Losses:
    """Counts as the metric does."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, lost: int) -> None:
        self.count += lost


@pytest.fixture
def losses() -> Losses:
    return Losses()


def put_all(lines: Lines, count: int) -> float:
    """Put so many lines from eight threads; how long it took, in seconds."""

    def put_some() -> None:
        for _ in range(count // 8):
            lines.put(b"line\n")

    begun = time.monotonic()
    threads = [threading.Thread(target=put_some) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.monotonic() - begun


def test_lines_come_out_as_they_went_in(pipe: Pipe, losses: Losses) -> None:
    lines = QueuedLines(pipe.writer, notice, losses)
    sent = [b"%d %b\n" % (number, b"x" * (number % 700)) for number in range(1_000)]
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read(len(b"".join(sent)))))
    reader.start()
    for line in sent:
        lines.put(line)
    assert lines.flush(GENEROUS_SECONDS)
    reader.join(GENEROUS_SECONDS)
    assert received == [b"".join(sent)]
    assert losses.count == 0


def test_a_reader_that_has_stopped_makes_nobody_wait(pipe: Pipe, losses: Losses) -> None:
    lines = QueuedLines(pipe.writer, notice, losses, most=100)
    filled = pipe.fill()
    assert put_all(lines, 4_000) < _AT_ONCE_SECONDS
    assert 0 < losses.count < 4_000
    assert not lines.flush(0.05), "what could not be written is not said to be"
    # It goes on: what was kept comes first, then how much was lost, then what is new.
    pipe.read(filled)
    kept = pipe.read_until(b" lost\n")
    # What came while that waited for the reader has filled the queue once more.
    assert lines.flush(GENEROUS_SECONDS)
    lines.put(b"new\n")
    assert lines.flush(GENEROUS_SECONDS)
    kept += pipe.read_until(b"new\n")
    assert kept.endswith(b"new\n")
    told = sum(int(line.split()[0]) for line in kept.splitlines() if line.endswith(b"lost"))
    assert told > 0 and kept.count(b"line\n") + losses.count == 4_000


@pytest.mark.parametrize("kind", [QueuedLines, DirectLines])
def test_a_reader_that_is_gone_costs_the_lines_and_nothing_else(
    pipe: Pipe, kind: Callable[..., Lines]
) -> None:
    lines = kind(pipe.writer, notice)
    pipe.stop_reading()
    assert put_all(lines, 4_000) < _AT_ONCE_SECONDS
    assert lines.flush(GENEROUS_SECONDS)


def test_lost_lines_are_counted_when_the_reader_is_gone(pipe: Pipe, losses: Losses) -> None:
    lines = QueuedLines(pipe.writer, notice, losses)
    pipe.stop_reading()
    for _ in range(10):
        lines.put(b"line\n")
    assert lines.flush(GENEROUS_SECONDS)
    assert losses.count == 10


def test_a_process_without_a_thread_waits_a_moment_at_most(pipe: Pipe) -> None:
    lines = DirectLines(pipe.writer, notice)
    filled = pipe.fill()
    begun = time.monotonic()
    for _ in range(5):
        lines.put(b"line\n")
    assert time.monotonic() - begun < _AT_ONCE_SECONDS
    pipe.read(filled)
    lines.put(b"again\n")
    assert pipe.read_until(b"again\n") == b"5 lost\nagain\n"


def test_a_long_line_that_a_pipe_takes_in_part_ends_before_the_next_one(pipe: Pipe) -> None:
    lines = DirectLines(pipe.writer, notice)
    filled = pipe.fill()
    pipe.read(3 * 4096)
    lines.put(b"x" * 20_000 + b"\n")
    pipe.read(filled - 3 * 4096)
    lines.put(b"next\n")
    torn, lost, following = pipe.read_until(b"next\n").splitlines()
    assert set(torn) == {ord("x")}
    assert (lost, following) == (b"1 lost", b"next")


def test_whoever_writes_keeps_others_from_the_pipe(pipe: Pipe) -> None:
    """In another process: of its own locks a process does not know."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import fcntl, sys; fcntl.lockf(2, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=pipe.writer,
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        queued, direct = QueuedLines(pipe.writer, notice), DirectLines(pipe.writer, notice)
        queued.put(b"queued\n")
        direct.put(b"direct\n")
        assert not queued.flush(0.1)
        os.set_blocking(pipe.reader, False)
        with pytest.raises(BlockingIOError):
            os.read(pipe.reader, 1)
        os.set_blocking(pipe.reader, True)
        holder.kill()  # the kernel gives its lock back
        assert pipe.read_until(b"queued\n") == b"queued\n"
        assert queued.flush(GENEROUS_SECONDS)
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def test_a_file_is_written_to_without_a_lock(tmp_path: Path, losses: Losses) -> None:
    with (tmp_path / "log").open("wb") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        lines = QueuedLines(file.fileno(), notice, losses)
        lines.put(b"line\n")
        assert lines.flush(GENEROUS_SECONDS)
    assert (tmp_path / "log").read_bytes() == b"line\n"


def test_lines_of_many_processes_on_one_pipe_are_never_torn() -> None:
    """Among them such as are longer than what a pipe keeps together by itself; the pipe is full most of the time."""
    processes, lines = 4, 300
    storm = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.gateway.log_storm", str(processes), str(lines)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    with storm:
        assert storm.stderr is not None
        descriptor = storm.stderr.fileno()
        content = b"".join(iter(lambda: os.read(descriptor, 700), b""))
    told = [json.loads(line) for line in content.splitlines()]
    by_process = Counter(line["pid"] for line in told if line["logger"] == "storm")
    # The master, which may have no thread, rather loses lines than to wait.
    del by_process[storm.pid]
    assert list(by_process.values()) == [lines] * processes, by_process


def test_the_writing_thread_starts_once_however_many_log_first(pipe: Pipe) -> None:
    lines = QueuedLines(pipe.writer, notice)
    before = threading.active_count()
    put_all(lines, 800)
    wait_until(lambda: threading.active_count() == before + 1)
    assert pipe.read(800 * 5).count(b"line\n") == 800
