"""Effects: what clients want once, under ids that two tenants share, and what every answer to them must say.

Each effect is asked for many times, by several clients at several instances, each time under a request id of its own:
``<tenant>.<id>.<number>``. So an answer that belongs to another request, or to another tenant's, shows its origin.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    usage_body,
)
from tests.support.http_client import JSON, as_tenant

TENANTS: Final = ("acme", "globex")
#: An event of the past of every clock that is an hour off: "of the future" is the one thing that an instance's own
#: clock decides.
_USAGE_AGE_MS: Final = 2 * 3600 * 1000
_BATCH: Final = 40


@dataclass(frozen=True)
class Operation:
    """One endpoint: where, with which key, and the subject that its effect is found on ("": the Router's)."""

    name: str
    path: str
    key: str
    status: int
    subject: str
    body: Callable[[str, str], dict[str, Any]]


def _usage(tenant: str, id: str) -> dict[str, Any]:
    timestamp = time.time_ns() // 1_000_000 - _USAGE_AGE_MS
    return usage_body(
        tenant_id=tenant, usage_id=id, assignment_id=id, provider_id=tenant, timestamp=timestamp
    )


def _assignment(tenant: str, id: str) -> dict[str, Any]:
    body = assignment_body(tenant_id=tenant, assignment_id=id, metadata={"of": tenant})
    del body["request_id"]  # each attempt has its own, as honest repeats do
    return body


def _ack(tenant: str, id: str) -> dict[str, Any]:
    return ack_body(tenant_id=tenant, ack_id=id, assignment_id=id, reason=tenant)


def _decide(tenant: str, id: str) -> dict[str, Any]:
    body = decide_body(tenant_id=tenant, assignment_id=id, metadata={"of": tenant})
    del body["request_id"]
    return body


def _batch(tenant: str, id: str) -> dict[str, Any]:
    return {"events": [_usage(tenant, name) for name in batch_ids(id)]}


def batch_ids(id: str) -> list[str]:
    """The ids of a batch's events."""
    return [f"{id}.{number}" for number in range(_BATCH)]


def _plain(tenant: str, id: str) -> dict[str, Any]:
    body = _decide(tenant, id)
    del body["assignment_id"]
    return body


METER: Final = Operation("usage", USAGE, "usage_id", 202, "beamline.usage.v1.metered", _usage)
BATCH: Final = Operation("usage in batches", f"{USAGE}/batch", "usage_id", 200, "", _batch)
ASSIGN: Final = Operation(
    "assignments", ASSIGNMENTS, "assignment_id", 202, "caf.exec.assign.v1", _assignment
)
ACK: Final = Operation("acks", ACKS, "ack_id", 202, "caf.exec.assign.v1.ack", _ack)
ASK: Final = Operation("decide", DECIDE, "assignment_id", 200, "", _decide)
PLAIN: Final = Operation("decide without an id", DECIDE, "", 200, "", _plain)
OPERATIONS: Final = {one.name: one for one in (METER, BATCH, ASSIGN, ACK, ASK, PLAIN)}
BY_SUBJECT: Final = {one.subject: one for one in OPERATIONS.values() if one.subject}


@dataclass
class Attempt:
    """One decide as it was asked for: under which number, when (monotonic s), and the status (0: no answer)."""

    number: int
    sent: float
    ended: float = 0.0
    status: int = 0


@dataclass
class Effect:
    """One thing wanted once; ``answers`` are its different 2xx, each with how often it was given.

    An answer is the place on the stream (a sequence), or the decision's provider, which names the request that the
    Router was asked by. Of a batch it is that it was accepted as a whole, and ``places`` has those of its events.
    """

    operation: str
    tenant: str
    id: str
    asked: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    firsts: int = 0
    """Answers that said to be no replay."""
    places: dict[str, set[str]] = field(default_factory=dict)
    """Of each event of a batch: where it is stored, as answers said."""
    new: Counter[str] = field(default_factory=Counter)
    """Of each event of a batch: the answers that said it to be no replay."""
    attempts: list[Attempt] = field(default_factory=list)
    """Of decides with an id only."""
    wrong: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    """Answers that only a store that has lost something explains."""
    refused: str = ""
    """The last answer that repeating does not change."""

    @property
    def settled(self) -> bool:
        return bool(self.answers or self.refused)

    def request(self) -> tuple[bytes, str]:
        """The bytes of the next attempt, and its request id."""
        self.asked += 1
        request_id = f"{self.tenant}.{self.id}.{self.asked}"
        return self._head + request_id.encode() + b"\r\n\r\n" + self._body, request_id

    def __post_init__(self) -> None:
        operation = OPERATIONS[self.operation]
        self._body = json.dumps(operation.body(self.tenant, self.id)).encode()
        headers = {
            "Host": "gateway",
            "Content-Type": JSON,
            "Content-Length": str(len(self._body)),
            **as_tenant(self.tenant),
            "X-Request-ID": "",
        }
        lines = [f"POST {operation.path} HTTP/1.1", *(f"{n}: {v}" for n, v in headers.items())]
        self._head = "\r\n".join(lines).encode()

    def note(self, request_id: str, status: int, head: bytes, body: bytes) -> str:
        """Take in one answer; what is crossed about it, or "". ``head`` is the header block."""
        try:
            document = orjson.loads(body)
            context = document["context"]
        except (ValueError, KeyError, TypeError):
            self.wrong.append(f"{status} with an unreadable body: {body[:200]!r}")
            return ""
        own = f"{self.tenant}.{self.id}."
        crossed = []
        if f"\r\nX-Request-ID: {request_id}\r\n".encode() not in head:
            crossed.append("the header X-Request-ID is not the request's")
        if status >= 300:
            if context.get("request_id") != request_id or context.get("tenant_id") not in (
                self.tenant,
                None,
            ):
                crossed.append(f"an error of {context}")
            self._refusal(status, document)
        else:
            crossed += self._acceptance(request_id, own, status, head, document)
        return f"{request_id}: {'; '.join(crossed)}" if crossed else ""

    def _refusal(self, status: int, document: dict[str, Any]) -> None:
        code = document["error"]["code"]
        if status == 500:
            self.wrong.append(f"500 {document['error']}")
        if status < 500 and code not in ("in_progress", "rate_limit_exceeded"):
            self.refused = f"{status} {document['error']}"

    def _acceptance(
        self, request_id: str, own: str, status: int, head: bytes, document: dict[str, Any]
    ) -> list[str]:
        crossed = []
        operation = OPERATIONS[self.operation]
        if status != operation.status or document.get("emitted") is False:
            self.unexpected.append(f"unexpected: {status} {document}")
        said = document["context"]["request_id"]
        if operation is BATCH:
            return self._batch_acceptance(request_id, document)
        if operation.subject:
            answer = str(document["seq"])
            if document[operation.key] != self.id or not said.startswith(own):
                crossed.append(f"a receipt of {document}")
        else:
            answer = document["decision"]["provider_id"].removeprefix("provider-of:")
            mine = answer.startswith(own) if operation.key else answer == request_id
            if not mine or not said.startswith(own):
                crossed.append(f"a decision of {answer}, context {said}")
        if not operation.key:
            answer = "its own"
        self.answers[answer] = self.answers.get(answer, 0) + 1
        self.firsts += b"\r\nIdempotency-Replayed: true\r\n" not in head
        return crossed

    def _batch_acceptance(self, request_id: str, document: dict[str, Any]) -> list[str]:
        crossed = []
        if document["context"]["request_id"] != request_id:
            crossed.append(f"an answer of {document['context']}")
        results = document["results"]
        if [one["usage_id"] for one in results] != batch_ids(self.id):
            crossed.append(f"the results of {[one['usage_id'] for one in results]}")
            return crossed
        for one in results:
            if one["outcome"] == "accepted":
                self.places.setdefault(one["usage_id"], set()).add(str(one["seq"]))
                self.new[one["usage_id"]] += "replayed" not in one
            elif one["outcome"] != "unknown":
                self.unexpected.append(f"unexpected: {one}")
        if all(one["outcome"] == "accepted" for one in results):
            self.answers["accepted"] = self.answers.get("accepted", 0) + 1
        self.firsts = max(self.new.values(), default=0)
        return crossed
