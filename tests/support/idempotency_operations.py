"""The four operations that happen once: their requests, honest repeats of them, and where their effect is seen."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Fleet
from tests.support.scripted_router import ScriptedRouter

REPLAYED: Final = "Idempotency-Replayed"
EXPIRES: Final = "Idempotency-Expires"
EXEC_STREAM: Final = "BEAMLINE_EXEC"
USAGE_STREAM: Final = "BEAMLINE_USAGE"

Document = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """A body and the headers that go with it."""

    body: Document
    headers: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Operation:
    """One of the four, equal to itself only."""

    name: str
    path: str
    key_type: str
    subject: str
    stream: str | None
    make: Callable[..., Document]
    other_content: Mapping[str, Any]
    success: int = 202

    def __str__(self) -> str:
        return self.name

    def body(self, id: str | None = None, **more: Any) -> Document:
        """A valid body with this id (a new one if none is given)."""
        return self.make(**{self.key_type: id or new_id("id"), **more})

    def repeat(self, body: Document) -> Request:
        """The same request as an honest client sends it again: under a request and a trace id of its own."""
        again = dict(body)
        if "request_id" in body and self.name in ("assignments", "decide"):
            again["request_id"] = str(uuid.uuid4())
        headers = {"X-Request-ID": new_id("retry"), "X-Trace-ID": uuid.uuid4().hex}
        return Request(again, headers)

    def of_tenant(self, body: Document, tenant: str) -> Document:
        """The same body of another tenant."""
        return {**body, "tenant_id": tenant}

    def with_other_content(self, body: Document) -> Document:
        """Another request under the same id."""
        return {**body, **self.other_content}

    def operation_path(self, id: str) -> str:
        """Where its state is told."""
        return f"/api/v1/operations/{self.name}/{id}"


ASSIGN: Final = Operation(
    "assignments",
    ASSIGNMENTS,
    "assignment_id",
    "caf.exec.assign.v1",
    EXEC_STREAM,
    assignment_body,
    {"executor": {"provider_id": "other:model", "channel": "nats"}},
)
ACK: Final = Operation(
    "acks",
    ACKS,
    "ack_id",
    "caf.exec.assign.v1.ack",
    EXEC_STREAM,
    ack_body,
    {"status": "rejected"},
)
METER: Final = Operation(
    "usage",
    USAGE,
    "usage_id",
    "beamline.usage.v1.metered",
    USAGE_STREAM,
    usage_body,
    {"cost": 0.5},
)
DECISION: Final = Operation(
    "decide",
    DECIDE,
    "assignment_id",
    "beamline.router.v1.decide",
    None,
    decide_body,
    {"policy_id": "another"},
    success=200,
)
PUBLISHES: Final = (ASSIGN, ACK, METER)
OPERATIONS: Final = (*PUBLISHES, DECISION)


class Effects:
    """What one operation has caused since this was made: messages on its stream, or calls of the Router."""

    def __init__(self, fleet: Fleet, operation: Operation, router: ScriptedRouter) -> None:
        self._fleet = fleet
        self._operation = operation
        self._router = router
        self._after = fleet.last_sequence(operation.stream) if operation.stream else 0
        self._asked = len(router.requests())

    def of(self, id: str, tenant: str = "acme") -> list[Document]:
        """The payloads with this id of this tenant, in order."""
        operation = self._operation
        if operation.stream is None:
            asked = [request.json() for request in self._router.requests()[self._asked :]]
            return [
                one for one in asked if (one["assignment_id"], one["tenant_id"]) == (id, tenant)
            ]
        found = []
        for message in self._fleet.stored(operation.stream, after=self._after):
            payload = json.loads(message.payload)
            named = message.headers.get("usage_id") or payload.get(operation.key_type)
            if (message.subject, named, payload["tenant_id"]) == (operation.subject, id, tenant):
                found.append(payload)
        return found


def same_answer(first: Answer, again: Answer) -> bool:
    """Status and body are equal, byte for byte."""
    return (first.status, first.body) == (again.status, again.body)


def expect_replay(first: Answer, again: Answer, *, ttl_seconds: float) -> None:
    """``again`` is the answer of ``first`` once more, and says so."""
    assert same_answer(first, again), f"{again}\nis no replay of\n{first}"
    assert again.header(REPLAYED) == "true", again
    expires = again.header(EXPIRES)
    assert expires is not None and 0 <= int(expires) <= ttl_seconds, again.header_list
