"""The form of a log line: one JSON object, or for people on a terminal a line that they can read.

Whatever a line holds, it stays one line and does nothing to the terminal that shows it: control characters, line ends
and what turns the direction of writing around are shown as escapes. No value is cut below what a person reads, and none
is so long that a log collector would split the line.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import orjson
import structlog
from structlog.typing import EventDict, WrappedLogger

from gateway.telemetry.logging.redaction import Redactor

_LONGEST_LINE: Final = 16_000
"""Bytes. Container runtimes split what is longer than 16 KiB."""
_LONGEST_VALUE: Final = 6_000
_LONGEST_CUT: Final = 1_500
_KEPT_HEAD: Final = 1 / 3
"""Of a value that is cut: of a traceback the end says most."""

_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff"
_ACTIVE: Final = re.compile(f"[{_CONTROL}]")
_ACTIVE_IN_JSON: Final = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""JSON has escaped the others already."""

_FIRST: Final = ("timestamp", "level", "event")


class JsonLine:
    """Renders an event as one line of JSON, redacted."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> str:
        """See `structlog.typing.Processor`."""
        event = {**{name: event[name] for name in _FIRST if name in event}, **event}
        line = _dumps(event)
        # Looked at as a whole: most lines hold nothing to hide, and this is on the way of every request.
        if self._redactor.concerns(line):
            line = _dumps(self._redactor.value(event))
        for longest in (_LONGEST_VALUE, _LONGEST_CUT):
            if len(line) > _LONGEST_LINE:
                line = _dumps({name: _cut(value, longest) for name, value in event_of(line)})
        if line.isascii() and "\x7f" not in line:
            return line
        return _ACTIVE_IN_JSON.sub(_escape, line)


class ReadableLine:
    """Renders an event for a person: time, level, event, then names and values; a traceback below, indented."""

    def __init__(self, redactor: Redactor, *, colors: bool) -> None:
        self._redactor = redactor
        # Plain tracebacks: the pretty ones print local variables, and with them credentials.
        self._render = structlog.dev.ConsoleRenderer(
            colors=colors, exception_formatter=structlog.dev.plain_traceback
        )

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> str:
        """See `structlog.typing.Processor`."""
        shown = self._redactor.value(event)
        traceback = shown.pop("exception", None)
        line = str(
            self._render(logger, method, {name: _inert(value) for name, value in shown.items()})
        )
        if traceback is None:
            return line
        # Indented, so that no text of an exception looks like a line of the log.
        told = "\n".join(f"    {_inert(part)}" for part in str(traceback).splitlines())
        return f"{line}\n{told}"


def event_of(line: str) -> list[tuple[str, Any]]:
    """The fields of a line of JSON, in their order."""
    return list(json.loads(line).items())


def _inert(value: Any) -> Any:
    return _ACTIVE.sub(_escape, value) if isinstance(value, str) else value


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def _cut(value: Any, longest: int) -> Any:
    text = value if isinstance(value, str) else _dumps(value)
    if len(text) <= longest:
        return value
    head = int(longest * _KEPT_HEAD)
    return f"{text[:head]} … {len(text) - longest} characters … {text[head - longest :]}"


def _dumps(event: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:
        # A lone surrogate (an undecodable path), a very large number, names that are no texts: rather slow than lost.
        return json.dumps(event, default=str, skipkeys=True)
