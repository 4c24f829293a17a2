"""The access line: one a request, written when its answer is known, a stream's when it has ended.

It names what correlates and what counts, and nothing that is somebody's: the route and not the path, no query, no user
agent, the client's address only where ``LOG_CLIENT_ADDRESS`` asks for it. A failure of ours (5xx) is a warning, a probe
that passed is for debugging.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import structlog

_ACCESS: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("gateway.access")
_SERVER_ERROR: Final = 500


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
    latency_ms = None if seconds is None else round(seconds * 1000, 3)
    _ACCESS.log(
        logging.WARNING if status >= _SERVER_ERROR else level,
        "request",
        route=route,
        method=method,
        status=status,
        **{
            name: value
            for name, value in {"latency_ms": latency_ms, **fields}.items()
            if value is not None
        },
    )
