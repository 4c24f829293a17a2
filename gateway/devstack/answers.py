"""The replies of the reference Router and what it publishes, as JSON: pure, one function each."""

from __future__ import annotations

from typing import Any, Final

import orjson

from gateway.devstack.behaviour import LATE_PROVIDER
from gateway.devstack.contract import ContractError, DecideRequest
from gateway.devstack.digest import stable_digest
from gateway.devstack.providers import Catalogue, provider

JsonObject = dict[str, Any]
_ASSIGNMENT_DEADLINE_MS: Final = 30_000


def decide(request: DecideRequest, catalogue: Catalogue, gone: frozenset[str]) -> JsonObject | None:
    """The decision about ``request``, or None when no provider is left.

    The preferred provider if it is there; else the same one for every request that has the same tenant,
    policy, task and context, whatever its ids. ``metadata`` repeats the request's id, so that whoever
    reads the decision can tell whose it is, and the preference.
    """
    metadata: JsonObject = {"router": "reference", "request_id": request.request_id}
    preferred = request.preferred_provider_id
    reason = "best_score"
    if preferred is not None:
        metadata["preferred_provider_id"] = preferred
        reason = "preferred"
        if preferred in gone or preferred not in catalogue:
            preferred, reason = None, "preferred_unavailable"
    chosen = provider(preferred) if preferred else catalogue.choose(_question(request), gone)
    if chosen is None:
        return None
    return {
        "provider_id": chosen.id,
        "priority": chosen.priority,
        "expected_latency_ms": chosen.expected_latency_ms,
        "expected_cost": chosen.expected_cost,
        "reason": reason,
        "metadata": metadata,
    }


def _question(request: DecideRequest) -> bytes:
    # The policy counts by what it is, not by what it asks of this Router: `without:` must move only the
    # requests whose provider it takes away.
    policy = "" if (request.policy_id or "").startswith("without:") else request.policy_id or ""
    task = {"payload": request.task.payload, "payload_ref": request.task.payload_ref}
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    return stable_digest(
        request.envelope.tenant_id,
        policy,
        request.task.type,
        orjson.dumps(task, option=options),
        orjson.dumps(request.context, option=options),
    ).encode()


def late_decision(request: DecideRequest) -> JsonObject:
    """A decision that no gateway may pass on: it says that it came too late."""
    return {
        "provider_id": LATE_PROVIDER,
        "priority": 0,
        "expected_latency_ms": 0,
        "expected_cost": 0,
        "reason": "late",
        "metadata": {"router": "reference", "request_id": request.request_id},
    }


def success(request: DecideRequest, decision: JsonObject) -> JsonObject:
    """DecideResponse."""
    return {"ok": True, "decision": decision, "context": _context(request)}


def failure(
    code: str, message: str, *, request: DecideRequest | None = None, intake: str | None = None
) -> JsonObject:
    """ErrorResponse. ``intake`` errors lose the request id, as the real Router's do."""
    error: JsonObject = {"code": code, "message": message, "details": {}}
    context = {} if request is None else _context(request)
    if intake is not None:
        error["intake_error_code"] = intake
        context.pop("request_id", None)
    return {"ok": False, "error": error, "context": context}


def intake_failure(error: ContractError, trace_id: str | None) -> JsonObject:
    """ErrorResponse for a request that breaks the contract: the gravest violation's code, all in details."""
    reply = failure(error.intake.error_code, str(error.violations[0]), intake=error.intake)
    reply["error"]["details"] = {
        "violations": [
            {"field": found.where, "message": found.message, "code": found.intake}
            for found in error.violations
        ]
    }
    if trace_id:
        reply["context"]["trace_id"] = trace_id
    return reply


def assignment(request: DecideRequest, decision: JsonObject) -> JsonObject:
    """The ExecAssignment of a decision; its id is the request's, or derived from the request's id."""
    tenant_id = request.envelope.tenant_id
    made_id = f"asg-{stable_digest(tenant_id, request.request_id)[:32]}"
    job: JsonObject = {"type": request.task.type}
    if request.task.payload is not None:
        job["payload"] = request.task.payload
    if request.task.payload_ref is not None:
        job["payload_ref"] = request.task.payload_ref
    return {
        "version": "1",
        "tenant_id": tenant_id,
        "assignment_id": request.assignment_id or made_id,
        "request_id": request.request_id,
        "executor": {"provider_id": decision["provider_id"], "channel": "nats"},
        "job": job,
        "options": {
            "priority": decision["priority"],
            "deadline_ms": _ASSIGNMENT_DEADLINE_MS,
            "retry": {"max_attempts": 3, "backoff_ms": 500},
        },
        "correlation": {"trace_id": request.envelope.trace_id},
        "decision": decision,
        "metadata": {"source": "reference-router"},
    }


def assignment_msg_id(published: JsonObject) -> str:
    """The ``Nats-Msg-Id`` of an assignment: one message for each tenant and assignment."""
    digest = stable_digest("assignment", published["tenant_id"], published["assignment_id"])
    return f"reference-router-{digest}"


def _context(request: DecideRequest) -> JsonObject:
    return {"request_id": request.request_id, "trace_id": request.envelope.trace_id}
