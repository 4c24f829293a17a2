"""The gate: how many requests are at work in this worker, and no more."""

from __future__ import annotations

import threading

from gateway.telemetry.metrics import declarations as metrics


class Gate:
    """Refuses what is over ``capacity``: two fewer than threads, so that probes always find one.

    A place is held by a request until it is answered; a stream takes it along until it ends.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._inside = 0

    def enter(self) -> bool:
        """Take a place if there is one."""
        with self._lock:
            if self._inside >= self._capacity:
                return False
            self._inside += 1
        metrics.IN_FLIGHT.inc()
        return True

    def leave(self) -> None:
        """Give the place back."""
        with self._lock:
            self._inside -= 1
        metrics.IN_FLIGHT.dec()
