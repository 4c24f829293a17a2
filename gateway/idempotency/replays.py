"""Replays: the finished outcomes that this worker knows, so that a repeat costs no hop.

An entry lives no longer than its record. When a bucket or stream is found to be another one than before, all entries
are dropped: the server's memory of them is gone, and so is ours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from cachetools import TLRUCache

from gateway.idempotency.claims import Conflict


@dataclass(frozen=True, slots=True)
class Replay:
    """An answer, ready to be sent again: status, encoded body, and until when (monotonic seconds).

    ``span`` is the first call's, as the record has it.
    """

    status: int
    body: bytes
    fingerprint: str
    expires_at: float
    span: str | None = None

    @property
    def expires_in_seconds(self) -> int:
        """Whole seconds that remain, rounded down: a promise is not made longer than it is."""
        return max(0, int(self.expires_at - time.monotonic()))


class Replays:
    """Bounded, least recently used first out. Used from all request threads."""

    def __init__(self, max_entries: int, generation: Callable[[], int]) -> None:
        self._lock = threading.Lock()
        self._generation = generation
        self._known = generation()
        self._entries: TLRUCache[str, Replay] = TLRUCache(
            max_entries, ttu=_expires_at, timer=time.monotonic
        )

    def get(self, key: str, fingerprint: str) -> Replay | None:
        """The finished outcome of ``key``. Raises Conflict if it belongs to another request."""
        with self._lock:
            self._forget_if_wiped()
            found = self._entries.get(key)
        if found is not None and found.fingerprint != fingerprint:
            raise Conflict
        return found

    def put(self, key: str, replay: Replay) -> None:
        """Remember a finished outcome."""
        # A copy: orjson leaves 4 KB and more behind what it has written, for as long as that is kept.
        kept = replace(replay, body=memoryview(replay.body).tobytes())
        with self._lock:
            self._forget_if_wiped()
            self._entries[key] = kept

    def _forget_if_wiped(self) -> None:
        generation = self._generation()
        if generation != self._known:
            self._known = generation
            self._entries.clear()


def _expires_at(_key: Any, replay: Replay, _now: float) -> float:
    return replay.expires_at
