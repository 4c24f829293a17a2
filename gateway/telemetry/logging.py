"""Logs: structlog, one JSON object a line (a readable form on a terminal), gunicorn's and libraries' lines alike."""

from __future__ import annotations

import json
import logging
import logging.config
import sys
from typing import Any, Final

import orjson
import structlog
from structlog.typing import Processor

from gateway.settings import Settings

ACCESS: Final[structlog.stdlib.BoundLogger] = structlog.get_logger("gateway.access")

_SHARED: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(settings: Settings) -> None:
    """Set up this process' logging; called in the master and again in each worker."""
    logging.config.dictConfig(config_dict(settings))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def config_dict(settings: Settings) -> dict[str, Any]:
    """The same as a ``logging`` dictionary, for gunicorn's ``logconfig_dict``."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    *_rendering(settings),
                ],
                "foreign_pre_chain": _SHARED,
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "root": {"handlers": ["stderr"], "level": settings.log_level.upper()},
        "loggers": {
            "gunicorn.error": {"level": settings.log_level.upper(), "propagate": True},
            "gunicorn.access": {"level": "CRITICAL", "propagate": False},
        },
    }


def _rendering(settings: Settings) -> list[Processor]:
    if settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty()):
        return [
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ]
    # Plain tracebacks: the pretty ones print local variables, and with them credentials.
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _dumps(event: Any, **_: Any) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:
        # A lone surrogate (an undecodable path), a very large number: rather slow than lost.
        return json.dumps(event, default=str)
