"""Loaded by Python at its start in the processes of `tests.support.faults_clock`: a `time.sleep` that works there.

libfaketime 0.9.10 shifts the absolute time that Python's own sleep gives to ``clock_nanosleep``, although the clock
that it is meant for (the monotonic one) is left alone: the call fails or never ends. Reading the clocks, which is what
the tests are about, is left to the library.
"""

from __future__ import annotations

import select
import time
from typing import SupportsIndex


def _sleep(seconds: float | SupportsIndex) -> None:
    select.select((), (), (), float(seconds))


time.sleep = _sleep
