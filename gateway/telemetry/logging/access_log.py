"""The access line: one a request, written when its answer is known, a stream's when it has ended.

It names what correlates and what counts, and nothing that is somebody's: the route and not the path, no query, no user
agent, the client's address only where ``LOG_CLIENT_ADDRESS`` asks for it. A failure of ours (5xx) is a warning, a probe
that passed is for debugging.

It is on the way of every request, so it does not take the long one of a log line: rendered here, it goes to the same
writer (`configure`). In a process where nothing is configured it is a record of the logger ``gateway.access``.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from structlog.typing import EventDict

_NAME: Final = "gateway.access"
_SERVER_ERROR: Final = 500
_LEVELS: Final = {logging.DEBUG: "debug", logging.INFO: "info", logging.WARNING: "warning"}


def write(
    *,
    route: str,
    method: str,
    status: int,
    seconds: float | None,
    fields: Mapping[str, Any],
    is_probe: bool = False,
) -> None:
    """Write the line of one request. ``fields`` whose value is None are left out; ``seconds`` is None where the
    request was refused before its time was taken."""
    level = logging.DEBUG if is_probe else logging.INFO
    if status >= _SERVER_ERROR:
        level = logging.WARNING
    event: EventDict = {"route": route, "method": method, "status": status}
    if seconds is not None:
        event["latency_ms"] = round(seconds * 1000, 3)
    event.update({name: value for name, value in fields.items() if value is not None})
    _send(level, event)


def configure(
    render: Callable[[Any, str, EventDict], str], put: Callable[[bytes], None], least: int
) -> None:
    """Send the lines of ``least`` (a level of `logging`) and above to ``put``, as ``render`` makes them."""
    global _send  # a logger is its process' own
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    pid = os.getpid()

    def send(level: int, fields: EventDict) -> None:
        if level < least:
            return
        name = _LEVELS[level]
        event = stamp(None, name, {"event": "request", "level": name, "logger": _NAME, "pid": pid})
        put(f"{render(None, name, {**event, **fields})}\n".encode(errors="backslashreplace"))

    _send = send


def _through_logging(level: int, fields: EventDict) -> None:
    structlog.get_logger(_NAME).log(level, "request", **fields)


_send: Callable[[int, EventDict], None] = _through_logging
