"""Logs: every line one JSON object, one access line a request, and nowhere a credential."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.devstack.ports import PortReservation
from tests.unit.gateway.logging_session import SECRET

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., str]]:
    """Runs the session; its output, of both streams."""
    nobody = PortReservation(0)

    def session(**environ: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "tests.unit.gateway.logging_session"],
            cwd=ROOT,
            env={
                **os.environ,
                "AUTH_MODE": "headers",
                "TRUSTED_PROXIES": "127.0.0.1",
                "NATS_URL": f"nats://gateway:{SECRET}@{nobody.address}",
                "NATS_USER": "gateway",
                "NATS_PASSWORD": SECRET,
                **environ,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
        return done.stdout

    yield session
    nobody.close()


@pytest.fixture(scope="module")
def text(run: Callable[..., str]) -> str:
    return run(LOG_FORMAT="auto", LOG_LEVEL="info")


@pytest.fixture(scope="module")
def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_one_json_object_that_says_when_who_and_how_bad(
    lines: list[dict[str, Any]],
) -> None:
    assert lines
    for line in lines:
        assert {"event", "level", "logger", "timestamp"} <= line.keys(), line


def test_there_is_one_access_line_a_request_and_none_for_a_probe_that_passed(
    lines: list[dict[str, Any]],
) -> None:
    access = [line for line in lines if line["logger"] == "gateway.access"]
    told = [(line["route"], line["status"], line.get("error_type")) for line in access]
    decide = "/api/v1/routes/decide"
    assert told == [
        (decide, 503, "internal_gateway"),
        (decide, 415, "request_gateway"),
        (decide, 401, "auth_gateway"),
        ("none", 404, "request_gateway"),
        ("/fail", 500, "internal_gateway"),
    ]
    first = access[0]
    assert (first["method"], first["tenant"], first["cp_phase"]) == ("POST", "acme", "cp2")
    assert first["error_code"] == "unavailable"
    assert len(first["trace_id"]) == 32 and first["request_id"] and first["latency_ms"] >= 0


def test_a_failure_is_told_with_its_traceback_in_the_same_line(
    lines: list[dict[str, Any]],
) -> None:
    [failure] = [line for line in lines if line["event"] == "a view failed"]
    assert failure["level"] == "error"
    assert "RuntimeError: a view failed" in failure["exception"]


def test_a_line_of_a_request_names_the_request(lines: list[dict[str, Any]]) -> None:
    [failure] = [line for line in lines if line["event"] == "a view failed"]
    [access] = [line for line in lines if line.get("route") == "/fail"]
    assert failure["request_id"] == access["request_id"]
    assert failure["trace_id"] == access["trace_id"]
    [foreign] = [line for line in lines if line["event"] == "Booting worker"]
    assert "request_id" not in foreign


def test_what_python_prints_itself_is_a_line_like_all_others(lines: list[dict[str, Any]]) -> None:
    [death] = [line for line in lines if "nobody caught" in line["event"]]
    assert death["level"] == "critical" and "LookupError" in death["exception"]
    [warning] = [line for line in lines if line["logger"] == "py.warnings"]
    assert "something will change" in warning["event"]


def test_no_line_is_lost_whatever_it_holds(lines: list[dict[str, Any]]) -> None:
    events = [line["event"] for line in lines]
    assert "several\nlines, and \x1b[31mcolours" in events
    assert "a lone surrogate: \udc80" in events
    assert "a large number" in events


def test_libraries_log_in_the_same_form_and_at_the_same_level(lines: list[dict[str, Any]]) -> None:
    events = [line["event"] for line in lines]
    assert "Booting worker" in events
    assert "not at this level" not in events and "not twice" not in events


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_credential_is_logged_at_any_level_in_any_form(
    run: Callable[..., str], form: str
) -> None:
    text = run(LOG_FORMAT=form, LOG_LEVEL="debug")
    assert "a view failed" in text
    assert SECRET not in text
