"""Waiting for conditions, never for luck; and the time bounds of the contract in one place."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

#: How much longer than promised an answer may take before a test fails. The promises are for a machine of
#: its own; a laptop that compiles beside the tests, or a CI agent with a busy neighbour, is slower.
PATIENCE: Final = float(os.environ.get("TEST_PATIENCE", "3"))

#: "by its deadline + 0.25 s": a silent Router, a frozen NATS.
DEADLINE_SLACK_SECONDS: Final = 0.25 * PATIENCE
#: "503 within 0.1 s": nothing to wait for (no responders, not connected).
AT_ONCE_SECONDS: Final = 0.1 * PATIENCE
#: "/livez answers within 0.2 s", whatever the rest of the worker does.
LIVEZ_SECONDS: Final = 0.2 * PATIENCE
#: "NATS comes: requests succeed within 1 s".
RECOVERY_SECONDS: Final = 1.0 * PATIENCE
#: For what the contract gives no bound: the test fails instead of hanging.
GENEROUS_SECONDS: Final = 20.0

_POLL_SECONDS: Final = 0.01


def wait_until(
    condition: Callable[[], T],
    timeout: float = GENEROUS_SECONDS,
    message: str | Callable[[], str] = "the condition did not come true",
) -> T:
    """Call ``condition`` until its result is true, and return that result.

    After ``timeout`` seconds it fails with ``message`` (called, if it can be, so that it tells the state
    at the end). An exception from the condition is not caught: say in the condition what is expected.
    """
    end = time.monotonic() + timeout
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            text = message() if callable(message) else message
            raise AssertionError(f"after {timeout:.1f} s: {text}")
        time.sleep(_POLL_SECONDS)
