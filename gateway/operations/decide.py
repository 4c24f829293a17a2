"""Decide: ask the Router which provider takes a task, and pass its answer on.

With an ``assignment_id`` it is idempotent: one call is in flight at a time and its outcome is everybody's
(`gateway.idempotency.leases`). With a session it goes to the session's provider (`gateway.sticky`). With the Router
down: NotSent at once when nobody listens, Unknown at the deadline when it is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeGuard

from bridge import Bus
from gateway import json
from gateway.context import RequestContext
from gateway.errors import ErrorCode, GatewayError, from_router
from gateway.idempotency import HttpId, Keep, Leases, Outcome, Record, Verdict
from gateway.idempotency.leases import Settled
from gateway.operations.outgoing import Outgoing, compose
from gateway.schemas.base import WIRE_VERSION
from gateway.sticky import PREFERRED, Sessions, Stickiness, session_key

DECIDE: Final = "decide"
_REPLAYED_ERRORS: Final = frozenset({404})
_NEVER_TOO_DEEP_BYTES: Final = 400
"""So few bytes cannot hold as many levels as JSON may have (two bytes each)."""


def compose_request(
    request: Mapping[str, Any], context: RequestContext, *, subject: str
) -> Outgoing:
    """The DecideRequest on the wire: what the client gave, and the ids that the gateway fills in.

    A client's own ``idempotency_key`` is not passed on where the gateway keeps the record: the Router answers a
    repeated one with silence.
    """
    body = {
        "version": WIRE_VERSION,
        "tenant_id": context.tenant,
        **request,
        "request_id": context.request_id,
        "trace_id": context.trace_id,
    }
    if "assignment_id" in request:
        body.pop("idempotency_key", None)
    return compose(subject, body, context)


@dataclass(frozen=True, slots=True)
class Question:
    """A decide on its way. ``outgoing`` was made before the hop, for the case that no provider is preferred;
    ``session`` is the key of its sticky session, if it has one."""

    request: Mapping[str, Any]
    context: RequestContext
    subject: str
    outgoing: Outgoing
    session: str | None

    def preferring(self, provider_id: str) -> Outgoing:
        """The message that asks for a provider."""
        metadata = {**self.request.get("metadata", {}), PREFERRED: provider_id}
        request = {**self.request, "metadata": metadata}
        return compose_request(request, self.context, subject=self.subject)


def question(
    request: Mapping[str, Any], context: RequestContext, *, subject: str, session_field: str
) -> Question:
    """What is asked, and of which session: none if the client names a preferred provider itself."""
    session = None
    if PREFERRED not in request.get("metadata", {}):
        session = session_key(context.tenant, session_field, request.get("context", {}))
    outgoing = compose_request(request, context, subject=subject)
    return Question(request, context, subject, outgoing, session)


@dataclass(frozen=True, slots=True)
class Decision:
    """The success body for the client, and what became of its session."""

    body: dict[str, Any]
    sticky: Stickiness | None


async def ask(
    bus: Bus, asked: Question, sessions: Sessions, on_sticky: Callable[[Stickiness], None]
) -> Decision:
    """Ask the Router, for the session's provider if it has one; ``on_sticky`` is told whether it has.

    Raises GatewayError for what the Router refuses, and the errors of the bridge.
    """
    deadline, key = asked.context.deadline, asked.session
    if key is None:
        reply = await _request(bus, asked.outgoing, deadline)
        return Decision(read_reply(reply, asked.context), None)
    found = await sessions.find(bus, key, deadline)
    on_sticky(found.stickiness)
    preferred = found.preferred
    outgoing = asked.outgoing if preferred is None else asked.preferring(preferred)
    try:
        body = read_reply(await _request(bus, outgoing, deadline), asked.context)
    except BaseException:
        sessions.release(bus, key, found)
        raise
    decision = body["decision"]
    reason = decision.get("reason")
    sticky = await sessions.settle(
        bus, key, found, decision["provider_id"], reason if _is_text(reason) else "", deadline
    )
    return Decision(body, sticky)


@dataclass(frozen=True, slots=True)
class Asked:
    """The settled outcome of a decide with an id; ``sticky`` only where this request's own call made it."""

    settled: Settled
    sticky: Stickiness | None


async def ask_once(
    bus: Bus,
    asked: Question,
    sessions: Sessions,
    on_sticky: Callable[[Stickiness], None],
    *,
    leases: Leases,
    key: HttpId,
    wanted: Record,
    on_claimed: Callable[[bool], None],
) -> Asked:
    """Ask under the key's lease, or take over the outcome of whoever asked; ``on_claimed`` is told which it was.

    Raises Conflict, InProgress and the errors of the bridge. The Router's refusals are outcomes, too. A replayed
    outcome does not touch the session.
    """
    sticky: Stickiness | None = None

    async def effect() -> Verdict:
        nonlocal sticky
        on_claimed(True)
        try:
            decision = await ask(bus, asked, sessions, on_sticky)
        except GatewayError as error:
            return _verdict(error, asked.context)
        sticky = decision.sticky
        return Verdict(Outcome(200, decision.body), Keep.REPLAY)

    deadline = asked.context.deadline
    settled = await leases.call(bus, key.record_key(DECIDE), wanted, effect, deadline)
    if not settled.held.mine:
        on_claimed(False)
        return Asked(settled, None)
    return Asked(settled, sticky)


async def _request(bus: Bus, outgoing: Outgoing, deadline: float) -> bytes:
    reply = await bus.request(
        outgoing.subject, outgoing.payload, headers=outgoing.headers, deadline=deadline
    )
    return reply.payload


def _verdict(error: GatewayError, context: RequestContext) -> Verdict:
    outcome = Outcome(
        error.status, error.body({**context.correlation(), "tenant_id": context.tenant_id})
    )
    if error.status in _REPLAYED_ERRORS:
        return Verdict(outcome, Keep.REPLAY)
    return Verdict(outcome, Keep.SHARE if error.status < 500 else Keep.RELEASE)


def read_reply(payload: bytes, context: RequestContext) -> dict[str, Any]:
    """The success body for the client: the Router's answer as it came, its ``context`` restored.

    Raises GatewayError by the Router's table, and 502 ``bad_reply`` for everything that is neither a decision nor
    an error as the contract has them: an unreadable reply is never a 200.
    """
    try:
        reply = json.loads(payload)
    except json.Unreadable:
        raise _bad_reply("is not JSON") from None
    if not isinstance(reply, dict):
        raise _bad_reply("is not a JSON object")
    if len(payload) > _NEVER_TOO_DEEP_BYTES and not json.fits(reply):
        raise _bad_reply("is nested too deeply")
    if reply.get("ok") is True:
        decision = reply.get("decision")
        if not isinstance(decision, dict) or not _is_text(decision.get("provider_id")):
            raise _bad_reply("names no provider")
        return {**reply, "context": _context(reply, context)}
    error = reply.get("error")
    if (
        reply.get("ok") is not False
        or not isinstance(error, dict)
        or not _is_text(error.get("code"))
    ):
        raise _bad_reply("is neither a decision nor an error")
    raise _error(reply, error)


def _error(reply: Mapping[str, Any], error: Mapping[str, Any]) -> GatewayError:
    message = error.get("message")
    intake = error.get("intake_error_code") or reply.get("intake_error_code")
    details = error.get("details")
    return from_router(
        error["code"],
        message if _is_text(message) else "The Router refused the request.",
        intake if _is_text(intake) else None,
        details if isinstance(details, dict) else {},
    )


def _context(reply: Mapping[str, Any], context: RequestContext) -> dict[str, Any]:
    given = reply.get("context")
    return {**(given if isinstance(given, dict) else {}), **context.correlation()}


def _is_text(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and value != ""


def _bad_reply(what: str) -> GatewayError:
    return GatewayError(ErrorCode.BAD_REPLY, f"The Router's reply {what}.")
