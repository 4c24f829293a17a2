"""Load: many clients at once, every outcome kept.

`at_once` sends a given number of requests together; `Load` keeps a number of clients busy until told to
stop. A client never repeats a request: what failed is counted as failed.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, TypeVar

from tests.support.http_client import Answer, Client
from tests.support.waiting import GENEROUS_SECONDS, wait_until

T = TypeVar("T")
R = TypeVar("R")

#: What a client calls the outcome of a request that got no HTTP answer.
NO_ANSWER: Final = "no answer"
_THREAD_JOIN_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Outcome:
    """One request of a load. Times are of the monotonic clock, in seconds."""

    started: float
    ended: float
    answer: Answer | None
    error: OSError | None = field(default=None, compare=False)

    @property
    def elapsed(self) -> float:
        return self.ended - self.started

    @property
    def kind(self) -> str:
        """``200``, ``503 unavailable``, ``no answer``: what to count by."""
        if self.answer is None:
            return NO_ANSWER
        return f"{self.answer.status} {self.answer.code or ''}".rstrip()

    def __str__(self) -> str:
        return f"{self.kind} after {self.elapsed:.3f} s ({self.error or self.answer})"


def at_once(items: Iterable[T], work: Callable[[T], R]) -> list[R]:
    """``work`` for every item, each on a thread of its own, all released together; results in order."""
    todo: Sequence[T] = list(items)
    gate = threading.Barrier(len(todo))

    def released(item: T) -> R:
        gate.wait(GENEROUS_SECONDS)
        return work(item)

    with ThreadPoolExecutor(max_workers=len(todo), thread_name_prefix="at-once") as pool:
        return list(pool.map(released, todo))


def kinds(outcomes: Iterable[Outcome]) -> Counter[str]:
    """How many of each kind."""
    return Counter(outcome.kind for outcome in outcomes)


class Load:
    """``clients`` threads that send one request after the other while the context is open.

    ``keep_alive`` False opens a connection a request; True keeps it until the server closes it, as it may
    between two requests. After a refused connection a client waits a moment, as every client should.
    """

    def __init__(
        self,
        new_client: Callable[[], Client],
        send: Callable[[Client], Answer],
        *,
        clients: int = 4,
        keep_alive: bool = True,
    ) -> None:
        self._new_client = new_client
        self._send = send
        self._keep_alive = keep_alive
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._outcomes: list[Outcome] = []
        self._threads = [
            threading.Thread(target=self._run, name=f"load-{number}", daemon=True)
            for number in range(clients)
        ]

    def outcomes(self, since: float = 0.0) -> list[Outcome]:
        """What has ended so far, of requests that started at ``since`` (monotonic) or later."""
        with self._lock:
            return [outcome for outcome in self._outcomes if outcome.started >= since]

    def wait_for(
        self, count: int, kind: str, *, since: float = 0.0, timeout: float = GENEROUS_SECONDS
    ) -> list[Outcome]:
        """Wait until ``count`` requests that started since then have ended as ``kind``."""

        def enough() -> list[Outcome]:
            found = [outcome for outcome in self.outcomes(since) if outcome.kind == kind]
            return found if len(found) >= count else []

        return wait_until(
            enough, timeout, lambda: f"not {count} × {kind}: {kinds(self.outcomes(since))}"
        )

    def stop(self) -> list[Outcome]:
        """End the load after each client's current request, and give all outcomes."""
        self._stop.set()
        for thread in self._threads:
            thread.join(_THREAD_JOIN_SECONDS)
            assert not thread.is_alive(), "a request hangs"
        return self.outcomes()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        with self._new_client() as client:
            while not self._stop.is_set():
                outcome = self._once(client)
                with self._lock:
                    self._outcomes.append(outcome)
                if outcome.error is not None:
                    self._stop.wait(0.02)
                if not self._keep_alive:
                    client.close()

    def _once(self, client: Client) -> Outcome:
        started = time.monotonic()
        try:
            answer = self._send(client)
        except OSError as error:
            return Outcome(started, time.monotonic(), None, error)
        return Outcome(started, time.monotonic(), answer)
