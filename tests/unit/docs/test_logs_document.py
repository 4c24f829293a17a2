"""docs/LOGS.md: the fields that lines really have, and no other."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest
import structlog

from gateway import refused
from gateway.errors import ErrorType
from tests.unit.gateway.given import DECIDE, app_without_nats, post

DOCUMENT = (Path(__file__).parents[3] / "docs" / "LOGS.md").read_text(encoding="utf-8")
#: What the tests of the running gateway see: a session's, and a key's. Here is neither a Router nor a key.
ELSEWHERE = {"sticky", "key"}


def fields_of(heading: str) -> set[str]:
    """The fields of the table below a heading."""
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`[^|]+`) \|", section, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.fixture(scope="module")
def access_fields() -> set[str]:
    """The fields of access lines of every kind that can be had without NATS."""
    gateway = app_without_nats(LOG_CLIENT_ADDRESS="true")
    with structlog.testing.capture_logs() as lines:
        post(gateway, DECIDE)
        post(gateway, DECIDE, {})
        post(gateway, DECIDE, headers={})
        refused.answer(HTTPStatus.BAD_REQUEST, "No.", reason="X", address="127.0.0.1")
    assert len(lines) == 4
    return {name for line in lines for name in line} - {"event", "log_level"}


def test_the_fields_of_an_access_line_are_documented_and_exist(access_fields: set[str]) -> None:
    assert fields_of("An access line") == access_fields | ELSEWHERE


def test_the_fields_of_every_line_are_those_that_the_log_promises() -> None:
    assert fields_of("Every line") == {
        "timestamp", "level", "event", "logger", "pid", "trace_id", "request_id", "exception",
    }  # fmt: skip


def test_the_types_of_errors_are_listed() -> None:
    row = next(line for line in DOCUMENT.splitlines() if line.startswith("| `error_type`"))
    assert re.findall(r"`(\w+)`", row)[1:] == [str(kind) for kind in ErrorType]
