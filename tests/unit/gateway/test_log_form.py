"""The form of log lines: one line an event, which parses, is bounded, and does nothing to a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.telemetry.logging.form import JsonLine, ReadableLine
from gateway.telemetry.logging.redaction import Redactor

JSON_LINE = JsonLine(Redactor(["sw0rdf1sh"]))
READABLE = ReadableLine(Redactor(["sw0rdf1sh"]), colors=False)
ACTIVE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
FORGED = 'x\n{"level":"critical","event":"forged"}\r\x1b[2J\x9b31m\u2028\u202egnirts'


def event(**fields: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-31T12:00:00Z", "level": "info", "event": "request", **fields}


@given(st.text(), st.text())
@example("name", FORGED)
@example("lone", "\udc80")
def test_a_line_of_json_is_one_line_and_gives_back_what_it_was_given(name: str, text: str) -> None:
    line = JSON_LINE(None, "", event(**{"event": text, name: text}))
    assert not ACTIVE.search(line), line
    assert line.encode()
    told = json.loads(line)
    assert told["event"] == (text if name != "event" else told[name])


@given(st.text(min_size=1), st.text())
@example("name", FORGED)
def test_a_readable_line_is_one_line_without_anything_active(name: str, text: str) -> None:
    line = READABLE(None, "", event(event=text, value=text))
    assert not ACTIVE.search(line), line


def test_a_traceback_below_a_readable_line_cannot_pretend_to_be_lines() -> None:
    shown = READABLE(None, "", event(exception=f"Traceback:\nValueError: {FORGED}"))
    first, *below = shown.splitlines()
    assert "request" in first and below
    assert all(line.startswith("    ") and not ACTIVE.search(line) for line in below)


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "x" * 100_000},
        {"exception": "\n".join(f'File "a.py", line {n}' for n in range(9_000)) + "\nthe cause"},
        {f"field_{n}": "y" * 5_000 for n in range(8)},
        {"deep": {"a": ["z" * 50_000]}},
        {"event": "\x01" * 15_000},
    ],
    ids=["event", "traceback", "many", "nested", "escapes"],
)
def test_a_long_line_is_cut_so_that_no_collector_splits_it(fields: dict[str, Any]) -> None:
    line = JSON_LINE(None, "", event(**fields))
    assert len(line.encode()) <= 16 * 1024
    told = json.loads(line)
    assert told["timestamp"] and told["level"] == "info"
    assert "characters …" in line
    if "exception" in fields:
        assert told["exception"].endswith("the cause"), "the end of a traceback says most"


@pytest.mark.parametrize("render", [JSON_LINE, READABLE], ids=["json", "readable"])
def test_what_is_hidden_is_hidden_in_both_forms(render: Any) -> None:
    line = render(None, "", event(url="nats://u:pw-of-u@n1", exception="x\nsw0rdf1sh"))
    assert "pw-of-u" not in line and "sw0rdf1sh" not in line


@pytest.mark.parametrize("render", [JSON_LINE, READABLE], ids=["json", "readable"])
def test_odd_values_are_shown_and_not_lost(render: Any) -> None:
    fields = {"number": 2**70, "thing": object, "nested": {1: {2}}, "set": {3}, "bytes": b"\xff"}
    assert "request" in render(None, "", event(**fields))
