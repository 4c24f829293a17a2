"""Cores: each worker stays on one, where there is one for each.

Python runs one thread of a worker at a time, and a request passes three of them. The kernel likes to wake the next one
on a core that is idle, which takes longer than what it has to do there, above all on virtual machines; on one core it
is a switch. Measured with two workers on two cores: a quarter more requests, and more on a busy machine
(docs/adr/0014).

The master chooses, before it forks: it alone knows who lives where.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

Pinning = Literal["auto", "on", "off"]

_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
_UNLIMITED: Final = "max"


class Cores:
    """Which worker is on which core. Used by the master; a worker has the copy that it was forked with."""

    def __init__(self, usable: Sequence[int]) -> None:
        """``usable``: the numbers of the cores; none: workers are not bound."""
        self._usable = tuple(usable)
        self._taken: dict[int, int] = {}

    @classmethod
    def of(cls, pinning: Pinning, workers: int, quota: Path = _QUOTA) -> Cores:
        """As the setting says. ``auto`` binds where there are as many workers as cores, and nothing says that the
        cores are shared out by time: a container with a quota is not alone on them."""
        if pinning == "off" or not hasattr(os, "sched_getaffinity"):
            return cls(())
        usable = sorted(os.sched_getaffinity(0))
        if pinning == "auto" and (workers != len(usable) or _is_limited(quota)):
            return cls(())
        return cls(usable)

    def choose(self, worker: int) -> None:
        """Give the worker of this number the core that has the fewest."""
        if self._usable:
            taken = Counter(self._taken.values())
            self._taken[worker] = min(self._usable, key=lambda core: taken[core])

    def bind(self, worker: int) -> None:
        """Bind this process to the core that was chosen for it. Raises OSError."""
        if worker in self._taken:
            os.sched_setaffinity(0, {self._taken[worker]})

    def release(self, worker: int) -> None:
        """The worker is gone."""
        self._taken.pop(worker, None)


def _is_limited(quota: Path) -> bool:
    try:
        return quota.read_text().split()[0] != _UNLIMITED
    except (OSError, IndexError):
        return False  # another system, or none
