"""Turns: whose the next connection is.

All workers wait for new connections at one socket, and the first to wake took a burst of them whole: one worker at its
limit, the others idle, for as long as the clients kept their connections (docs/adr/0014).
"""

from __future__ import annotations

import mmap
import time
from typing import Final


class _Turns:
    """How many connections each worker of this master has taken. Made before the fork, in memory that all share.

    They take turns: one that has taken more than another leaves the next one to it for a moment. By turns and not by
    the connections that are open now, since an idle one is no work.
    """

    _SLOTS: Final = 256
    _HEARD_OF_SECONDS: Final = 2
    """A worker says something every second; one that does not, hangs, and nothing is left to it."""
    _MOST_BEHIND: Final = 64
    """One that is further behind is too busy to take its turns; who waits for it only loses time."""

    def __init__(self) -> None:
        shared = memoryview(mmap.mmap(-1, 3 * 8 * self._SLOTS)).cast("Q")
        slots = self._SLOTS
        self._taken, self._open = shared[:slots], shared[slots : 2 * slots]
        self._told_at = shared[2 * slots :]

    def tell(self, age: int, taken: int, connections: int) -> None:
        """Of the worker of that age (its number, by gunicorn): how many it has taken, and has now."""
        slot = age % self._SLOTS
        self._taken[slot], self._open[slot] = taken, connections
        self._told_at[slot] = int(time.monotonic())

    def forget(self, age: int) -> None:
        """The worker of that age is gone."""
        self._told_at[age % self._SLOTS] = 0

    def begin(self) -> int:
        """What a new worker begins with: behind the others by what they have kept, so that it gets as many."""
        living = self._living()
        if not living:
            return 0
        kept = sum(self._open[slot] for slot in living) // len(living)
        return max(0, max(self._taken[slot] for slot in living) - min(kept, self._MOST_BEHIND))

    def is_somebody_elses(self, taken: int) -> bool:
        """Whether the next connection is for another worker than one that has taken so many."""
        return any(0 < taken - self._taken[slot] <= self._MOST_BEHIND for slot in self._living())

    def _living(self) -> list[int]:
        since = max(1, int(time.monotonic()) - self._HEARD_OF_SECONDS)
        return [slot for slot, told_at in enumerate(self._told_at) if told_at >= since]


turns: Final = _Turns()
