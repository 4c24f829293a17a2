"""``beamline-gateway smoke --devstack``: from nothing to an answer, and nothing left of it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from gateway.devstack import child_process
from tests.support.process_table import children_of
from tests.support.smoke_command import smoke, smoke_environment
from tests.support.waiting import wait_until

SETTINGS_OF_A_SHELL = {
    "NATS_URL": "nats://127.0.0.1:1",
    "GATEWAY_BIND": "203.0.113.7:1",
    "AUTH_MODE": "jwt",
    "WEB_CONCURRENCY": "many",
    "OTEL_TRACES_SAMPLER": "always_off",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://203.0.113.7:4318",
    "BEAMLINE_KEY": "a key of somebody's",
}


def bare_python() -> str:
    """The interpreter behind this environment."""
    found: str = getattr(sys, "_base_executable")  # noqa: B009 - mypy does not know it
    return found


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_everything_is_checked_over_both_protocols_and_nothing_is_left(
    protocol: str, tmp_path: Path
) -> None:
    ended = smoke(
        "--devstack", "--strict", "--otlp-protocol", protocol, cwd=tmp_path, TMPDIR=str(tmp_path)
    )
    assert (ended.code, ended.failures) == (0, []), f"{ended.document}\n{ended.errors}"
    assert set(ended.outcomes.values()) == {"passed"}
    assert list(ended.outcomes) == [
        "livez", "readyz", "metrics", "identity", "once", "stream", "round-trip", "families", "counters", "traces",
    ]  # fmt: skip
    assert list(tmp_path.iterdir()) == []


def test_the_settings_of_the_shell_take_no_part(tmp_path: Path) -> None:
    ended = smoke(
        "--devstack", "--strict", cwd=tmp_path, TMPDIR=str(tmp_path), **SETTINGS_OF_A_SHELL
    )
    assert (ended.code, ended.failures) == (0, []), f"{ended.document}\n{ended.errors}"


def test_a_stack_that_does_not_start_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    """There is no nats-server beside the Python that this environment was made with, nor on the PATH."""
    environment = smoke_environment({"PATH": "/nonexistent", "TMPDIR": str(tmp_path)})
    environment["PYTHONPATH"] += f":{sysconfig.get_path('purelib')}"
    ended = subprocess.run(
        [bare_python(), "-m", "gateway.cli", "smoke", "--devstack"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 70, ended.stderr
    assert re.match(r"FAILED +start +the devstack does not start: nats-server", ended.stdout)
    assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    command = child_process.spawn(
        [sys.executable, "-m", "gateway.cli", "smoke", "--devstack"],
        stdout=subprocess.DEVNULL,
        env=smoke_environment({"TMPDIR": str(tmp_path)}),
        cwd=tmp_path,
    )

    def has_started_some() -> bool:
        assert command.poll() is None, "it ended by itself"
        return len(children_of(command.pid)) >= 2

    try:
        wait_until(has_started_some, 60.0)
        os.kill(command.pid, number)
        assert command.wait(30.0) not in (0, None)
    finally:
        child_process.kill(command)
    wait_until(lambda: list(tmp_path.iterdir()) == [], 10.0, lambda: str(list(tmp_path.iterdir())))
