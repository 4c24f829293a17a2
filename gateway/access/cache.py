"""The fail-closed cache: what was looked up is good for a while, and a failure is never an answer.

One lookup at a time a key, on a thread of its own with a deadline of its own, so that neither an impatient request
nor two hundred at once decide how often the source is asked. Answers and denials have their own time to live, counted
from the lookup's **start**: what was changed before that is never older than the TTL.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from cachetools import TLRUCache

from gateway.sources import LOOKUP_SECONDS, SourceUnavailable

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_log = logging.getLogger(__name__)
_MOST_FLIGHTS: Final = 64
"""Lookups at once; whoever comes over it is told that it cannot be told."""
_MARGIN_SECONDS: Final = 0.5
"""How much longer than a lookup takes at most its waiters wait for it."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[V]):
    """What a lookup found, None for a denial; times are monotonic seconds."""

    value: V | None
    asked_at: float
    good_until: float

    def age(self) -> float:
        """Seconds since the source was asked."""
        return time.monotonic() - self.asked_at


class FailClosedCache(Generic[K, V]):
    """``look_up(key)`` behind a TTL. It returns None for a denial and raises for "cannot be told"."""

    def __init__(
        self,
        look_up: Callable[[K], V | None],
        *,
        name: str,
        ttl_seconds: float,
        deny_ttl_seconds: float,
        max_entries: int = 10_000,
    ) -> None:
        self._look_up = look_up
        self._name = name
        self._ttls = (ttl_seconds, deny_ttl_seconds)
        self._lock = threading.Lock()
        self._flights: dict[K, Future[Answer[V]]] = {}
        self._answers: TLRUCache[K, Answer[V]] = TLRUCache(
            max_entries, ttu=lambda _key, answer, _now: answer.good_until, timer=time.monotonic
        )

    def get(self, key: K, deadline: float) -> tuple[Answer[V], bool]:
        """The answer for ``key``, and whether it was there already.

        Waits for a lookup until it has ended or ``deadline`` (monotonic seconds). Raises SourceUnavailable, which is
        not remembered.
        """
        with self._lock:
            known: Answer[V] | None = self._answers.get(key)
            if known is not None:
                return known, True
            flight = self._flights.get(key)
            if flight is None:
                if len(self._flights) >= _MOST_FLIGHTS:
                    raise SourceUnavailable(f"{self._name}: too many lookups at once")
                flight = Future()
                # A miss is rare: a thread for it is simpler than a pool, and ends by itself.
                thread = threading.Thread(
                    target=self._fly, args=(key, flight), name=f"look-up-{self._name}", daemon=True
                )
                try:
                    thread.start()
                except RuntimeError as error:  # the machine has no thread left
                    raise SourceUnavailable(f"{self._name}: {error}") from None
                # It needs the lock to end: it cannot be over before it is written down.
                self._flights[key] = flight
        patience = min(deadline - time.monotonic(), LOOKUP_SECONDS + _MARGIN_SECONDS)
        try:
            answer = flight.result(max(0.0, patience))
            # What took longer than its TTL to be found may have been taken away since it was asked for.
            if answer.value is None or time.monotonic() < answer.good_until:
                return answer, False
            why = "the answer came too late"
        except TimeoutError:
            why = "no answer in time"
        except SourceUnavailable as error:
            why = str(error)
        raise SourceUnavailable(f"{self._name}: {why}")

    def _fly(self, key: K, flight: Future[Answer[V]]) -> None:
        asked_at = time.monotonic()
        try:
            value = self._look_up(key)
        except BaseException as error:
            # Whatever it is: a flight that nobody ends would hold its key for ever.
            if isinstance(error, SourceUnavailable):
                _log.warning("%s cannot be looked up: %s", self._name, error)
            else:
                _log.exception("%s cannot be looked up", self._name)
            with self._lock:
                del self._flights[key]
            # Not the error itself: whoever waits raises one of its own.
            flight.set_exception(SourceUnavailable("the source failed"))
            return
        answer = Answer(value, asked_at, asked_at + self._ttls[value is None])
        with self._lock:
            self._answers[key] = answer
            del self._flights[key]
        flight.set_result(answer)
