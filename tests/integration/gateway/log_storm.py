"""Processes that log at once to one pipe, long lines among short ones; `test_log_writer` reads the other end.

Run with ``python -m tests.integration.gateway.log_storm PROCESSES LINES``: the first process is the master, without a
thread as gunicorn's, and the others are forked from it.
"""

from __future__ import annotations

import logging
import os
import sys

from gateway.settings import Settings
from gateway.telemetry.logging import setup

_LENGTHS = (0, 100, 4_000, 5_000, 9_000)


def main(processes: int, lines: int) -> None:
    """Log ``lines`` lines from each."""
    settings = Settings.from_environ(
        {"AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1", "LOG_FORMAT": "json"}
    )
    logging.config.dictConfig(setup.config_dict(settings))
    children = [pid for _ in range(processes) if (pid := _fork(settings, lines))]
    _log(lines, "master")
    for pid in children:
        os.waitpid(pid, 0)


def _fork(settings: Settings, lines: int) -> int:
    pid = os.fork()
    if pid == 0:
        setup.configure(settings, lambda lost: None)
        _log(lines, str(os.getpid()))
        logging.shutdown()  # what the interpreter does at its end
        os._exit(0)
    return pid


def _log(lines: int, who: str) -> None:
    for number in range(lines):
        text = "x" * _LENGTHS[number % len(_LENGTHS)]
        logging.getLogger("storm").warning("%s", text, extra={"who": who, "number": number})


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
