"""Decides with an ``assignment_id`` before a Router that answers when it is told to."""

from __future__ import annotations

from typing import Final

from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Fleet
from tests.support.idempotency_operations import DECISION, Document
from tests.support.scripted_router import Reply, RouterRequest, ScriptedRouter
from tests.support.waiting import wait_until

_LOOKS: Final = 5


class Asked:
    """A Router that answers when it is told to, and the requests of one id that have come to it."""

    def __init__(self, router: ScriptedRouter, id: str) -> None:
        self.router = router
        self._id = id

    def requests(self) -> list[RouterRequest]:
        return [
            one for one in self.router.requests() if one.json().get("assignment_id") == self._id
        ]

    def wait_for(self, count: int) -> list[RouterRequest]:
        return wait_until(
            lambda: found if len(found := self.requests()) >= count else [],
            message=lambda: f"{len(self.requests())} of {count} requests came",
        )

    def answer(self, number: int, reply: Reply) -> None:
        """Answer the request with this number, counted from 1, as soon as it is there."""
        self.router.answer(self.wait_for(number)[number - 1], reply)


def state_of(fleet: Fleet, body: Document) -> Answer:
    """What the second instance knows of the decide."""
    return fleet.get(DECISION.operation_path(body["assignment_id"]), instance=1)


def wait_until_free(fleet: Fleet, body: Document) -> None:
    """Until the id is released: nothing is known of it any more."""
    wait_until(
        lambda: state_of(fleet, body).status == 404,
        message=lambda: f"the id is not free: {state_of(fleet, body)}",
    )


def wait_until_looked_at(fleet: Fleet, *, workers: int) -> None:
    """Until so many workers have asked NATS a few things more: each request that waits looks at the record again and
    again, and so it has seen it by then."""
    before = _asked_by_connection(fleet)

    def enough() -> bool:
        now = _asked_by_connection(fleet)
        return sum(now[one] >= before.get(one, 0) + _LOOKS for one in now) >= workers

    wait_until(enough, message="nobody looks at the record")


def at_work(fleet: Fleet) -> int:
    """How many requests are under way in the whole fleet."""
    return int(fleet.total("beamline_gateway_in_flight_requests"))


def _asked_by_connection(fleet: Fleet) -> dict[int, int]:
    """How many messages each worker's connection has sent."""
    connections = fleet.nats.connz()["connections"]
    return {
        one["cid"]: one["in_msgs"]
        for one in connections
        if one.get("name", "").startswith("beamline-gateway")
    }
