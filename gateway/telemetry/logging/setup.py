"""Logs: structlog, one JSON object a line (a readable form on a terminal), gunicorn's and libraries' lines alike.

Every line has ``timestamp`` (UTC), ``level``, ``logger``, ``pid`` and ``event``; one that is written while a request or
a message is at work has its ``trace_id`` and ``request_id`` too. How a line looks is decided in `form`, what it may not
hold in `redaction`, how it leaves the process in `writer`.
"""

from __future__ import annotations

import logging
import logging.config
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from gateway.settings import Settings
from gateway.telemetry.logging import access_log
from gateway.telemetry.logging.form import JsonLine, ReadableLine
from gateway.telemetry.logging.redaction import Redactor, secrets_in_force
from gateway.telemetry.logging.writer import LineHandler

_log: Final = logging.getLogger(__name__)


def configure(settings: Settings, count_lost: Callable[[int], None]) -> None:
    """Set up a worker's logging, after the fork: it starts a thread. ``count_lost`` is told of lines nobody read."""
    # Imported in workers only: the master needs neither Flask nor OpenTelemetry.
    from gateway.telemetry.logging.correlation import add_correlation

    first = [*_FIRST, add_correlation]
    render = _rendering(settings)
    logging.config.dictConfig(_config(settings, first, render, count_lost))
    root = logging.getLogger()
    (handler,) = (found for found in root.handlers if isinstance(found, LineHandler))
    access_log.configure(render, handler.put, root.level)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *first,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    sys.unraisablehook = lambda told: _uncaught(
        told.exc_type, told.exc_value or told.exc_type(), told.exc_traceback
    )
    threading.excepthook = lambda told: _uncaught(
        told.exc_type, told.exc_value or told.exc_type(), told.exc_traceback
    )


def config_dict(settings: Settings) -> dict[str, Any]:
    """The same as a ``logging`` dictionary, for gunicorn's ``logconfig_dict``: for its master, which has no thread."""
    return _config(settings, _FIRST, _rendering(settings), None)


def _config(
    settings: Settings,
    first: list[Processor],
    render: Processor,
    count_lost: Callable[[int], None] | None,
) -> dict[str, Any]:
    level = settings.log_level.upper()
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    render,
                ],
                "foreign_pre_chain": first,
            }
        },
        "handlers": {
            "stderr": {"()": LineHandler, "count_lost": count_lost, "formatter": "line"},
        },
        "root": {"handlers": ["stderr"], "level": level},
        "loggers": {
            "gunicorn.error": {"level": level, "propagate": True},
            # The access lines are our own.
            "gunicorn.access": {"level": "CRITICAL", "propagate": False},
        },
    }


def _rendering(settings: Settings) -> JsonLine | ReadableLine:
    redactor = Redactor(secrets_in_force(settings, os.environ))
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if settings.log_format == "json" or (settings.log_format == "auto" and not is_terminal):
        return JsonLine(redactor)
    return ReadableLine(redactor, colors=is_terminal and not os.environ.get("NO_COLOR"))


def _add_process(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    event["pid"] = os.getpid()
    return event


_FIRST: Final[list[Processor]] = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _add_process,
]


def _uncaught(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    """What would else be printed to stderr in a form of its own."""
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        _log.critical("an exception that nobody caught", exc_info=(kind, error, traceback))
