"""The latest dead letters, for people who look again and again: read from the stream at most every few seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final

from bridge import Bridge, BridgeError
from gateway.operations import dead_letters
from gateway.operations.dead_letters import DeadLetter

_MOST: Final = 20
_KEPT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 1.5


@dataclass(frozen=True, slots=True)
class Latest:
    """Newest first; ``trouble`` says why there are none to be shown, if they could not be read."""

    letters: tuple[DeadLetter, ...] = ()
    trouble: str | None = None


class Letters:
    """The latest of the instance's dead letters. With NATS away: none, and why."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge
        self._lock = threading.Lock()
        self._latest = Latest()
        self._read_at = -_KEPT_SECONDS

    def latest(self) -> Latest:
        """Waits for NATS a moment at most, and for others who ask at the same time."""
        with self._lock:
            if time.monotonic() >= self._read_at + _KEPT_SECONDS:
                self._latest = self._read()
                self._read_at = time.monotonic()
            return self._latest

    def _read(self) -> Latest:
        deadline = time.monotonic() + _READ_SECONDS
        try:
            found = self._bridge.run(
                lambda bus: dead_letters.latest(bus, _MOST, deadline), deadline
            )
        except BridgeError as error:
            return Latest(trouble=str(error))
        return Latest(tuple(found))
