"""An honest client: it repeats what is not answered for good, as the contract tells it, until it is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Fleet
from tests.support.idempotency_operations import Document, Operation
from tests.support.waiting import GENEROUS_SECONDS

#: A tenant, an operation, an id.
Key = tuple[str, Operation, str]


@dataclass(frozen=True)
class Asked:
    """A request and its answer; ``attempts`` counts those that were not answered for good, too."""

    answer: Answer
    attempts: int
    began: float
    ended: float


class Client:
    """Sends, and sends again to the other instance; every repeat under request and trace ids of its own."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def ask(self, key: Key, body: Document, instance: int) -> Asked:
        tenant, operation, _ = key
        began = time.monotonic()
        for attempt in range(1, 1000):
            again = operation.repeat(body)
            try:
                answer = self._fleet.post(
                    operation.path,
                    again.body,
                    again.headers,
                    tenant=tenant,
                    instance=(instance + attempt) % 2,
                )
            except OSError:  # the worker was killed
                answer = None
            if answer is not None and not unsettled(answer):
                return Asked(answer, attempt, began, time.monotonic())
            assert time.monotonic() < began + GENEROUS_SECONDS, f"no answer to {key}: {answer}"
            time.sleep(0.02)
        raise AssertionError("unreachable")


def unsettled(answer: Answer) -> bool:
    """Whether the contract tells the client to send the same request again."""
    return answer.status in (503, 504) or answer.code == "in_progress"
