"""OpenTelemetry's complaints: one line a minute, over all processes that share a pace."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from gateway.telemetry.logging import otel_lines
from gateway.telemetry.logging.otel_lines import Pace, Seldom
from tests.support.gateway_process import REPOSITORY
from tests.support.waiting import GENEROUS_SECONDS, wait_until

FORKED = """
import os, signal, sys
from gateway.telemetry.logging.otel_lines import Pace

pace = Pace(60.0)
go_read, go_write = os.pipe()
for _ in range(8):
    if os.fork() == 0:
        os.close(go_write)
        os.read(go_read, 1)  # until all of them are there
        passed = sum(pace.passes() for _ in range(500))
        if passed and "--kill" in sys.argv:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(passed)
os.close(go_write)
statuses = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(8)]
print(*sorted(statuses), int(pace.passes()))
"""


@contextlib.contextmanager
def undone(name: str) -> Iterator[logging.Logger]:
    """A logger, as it was before afterwards."""
    logger = logging.getLogger(name)
    yield logger
    for handler in logger.handlers:
        handler.close()
    logger.handlers, logger.propagate = [], True


def forked(*arguments: str) -> list[int]:
    """How many times each of eight processes was let through, and whether their parent was after them."""
    ended = subprocess.run(
        [sys.executable, "-c", FORKED, *arguments],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=GENEROUS_SECONDS,
        check=True,
    )
    return [int(word) for word in ended.stdout.split()]


def test_of_many_processes_at_once_one_is_let_through() -> None:
    assert forked() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_a_process_killed_right_after_its_turn_stops_nobody_later() -> None:
    *statuses, after = forked("--kill")
    assert sorted(statuses) == [-signal.SIGKILL, *[0] * 7]
    assert after == 0  # its turn counts: the next is due in a minute


def test_the_next_turn_comes_when_the_time_has_passed() -> None:
    with contextlib.closing(Pace(0.05)) as pace:
        begun = time.monotonic()
        assert pace.passes() and not pace.passes()
        wait_until(pace.passes)
        assert time.monotonic() - begun >= 0.05


def test_a_line_says_how_many_before_it_were_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with undone("some.library") as logger:
        logger.handlers, logger.propagate = [Seldom(Pace(0.2))], False
        for number in range(5):
            logger.warning("export %d failed", number)
        assert caplog.messages == ["traces: export 0 failed"]

        def again() -> bool:
            logger.error("export failed again")
            return len(caplog.messages) == 2

        wait_until(again)
    assert caplog.messages[1].startswith("traces: export failed again (and ")


def test_what_opentelemetry_logs_anywhere_below_goes_this_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with undone("opentelemetry"):
        otel_lines.install()
        for name in ("opentelemetry.exporter.otlp", "opentelemetry.sdk.trace", "opentelemetry"):
            logging.getLogger(name).warning("complaint of %s", name)
            logging.getLogger(name).info("nobody wants to know")
    assert caplog.messages == ["traces: complaint of opentelemetry.exporter.otlp"]
