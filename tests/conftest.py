"""Fixtures of the whole suite; see README.md for what each kind of test may use."""

from __future__ import annotations

import signal

from tests.support.capture import nothing_planted_leaks, telemetry_is_captured
from tests.support.leaks import leaves_nothing_behind, process_mark

__all__ = [
    "leaves_nothing_behind",
    "nothing_planted_leaks",
    "process_mark",
    "telemetry_is_captured",
]

# Whoever starts the suite in the background of a shell, as Jenkins does, has it ignore SIGINT; and all that the suite
# starts would inherit that, and not hear the tests that interrupt it.
signal.signal(signal.SIGINT, signal.default_int_handler)
