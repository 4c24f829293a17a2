"""Executions: what the Router saw of each decide, and whether it was more than one call a lease."""

from __future__ import annotations

import itertools
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.faults.scenarios import Request
from tests.support.scripted_router import RouterRequest, decide_for


@dataclass(frozen=True)
class Execution:
    """One request as the Router got it: of which attempt, and when (monotonic seconds)."""

    attempt_id: str
    at: float


class Executions:
    """A Router's memory; ``decide`` is its behaviour."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[str, list[Execution]] = defaultdict(list)

    def decide(self, asked: RouterRequest) -> dict[str, Any]:
        """Note the request and answer with a decision that names it, so that no two answers are equal."""
        document = asked.json()
        with self._lock:
            self._of[document["assignment_id"]].append(
                Execution(document["request_id"], time.monotonic())
            )
        return decide_for(asked)

    def of(self, assignment_id: str) -> list[Execution]:
        """All executions of an id, in order."""
        with self._lock:
            return list(self._of.get(assignment_id, ()))


def overlapping(
    executions: list[Execution], requests: Iterable[Request], lease_seconds: float
) -> list[str]:
    """The executions of one id, out of all its requests, that share a lease, each in words.

    An attempt holds at most one lease, since a lease is longer than its deadline. An attempt that got a 5xx has given
    its lease back; any other ends its lease no sooner than a whole lease after it was sent.
    """
    attempts = {attempt.id: attempt for one in requests for attempt in one.attempts}
    wrong = []
    for before, after in itertools.pairwise(executions):
        first = attempts[before.attempt_id]
        if after.attempt_id == before.attempt_id:
            wrong.append(f"attempt {before.attempt_id} asked the Router twice")
            continue
        released = first.answer is not None and first.answer.status >= 500
        if not released and after.at < first.sent + lease_seconds:
            seconds = after.at - first.sent
            wrong.append(f"asked again {seconds:.3f} s after a call that was not given back")
    return wrong
