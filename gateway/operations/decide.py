"""Decide: ask the Router which provider takes a task, and pass its answer on.

With an ``assignment_id`` it is idempotent: one call is in flight at a time and its outcome is everybody's
(`gateway.idempotency.leases`). With the Router down: NotSent at once when nobody listens, Unknown at the deadline when
it is silent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeGuard

from bridge import Bus
from gateway import json
from gateway.context import RequestContext
from gateway.errors import ErrorCode, GatewayError, from_router
from gateway.idempotency import HttpId, Keep, Leases, Outcome, Record, Verdict
from gateway.idempotency.leases import Settled
from gateway.operations.outgoing import Outgoing, compose
from gateway.schemas.base import WIRE_VERSION

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


async def ask(bus: Bus, outgoing: Outgoing, deadline: float) -> bytes:
    """One request, one reply: the Router's bytes."""
    reply = await bus.request(
        outgoing.subject, outgoing.payload, headers=outgoing.headers, deadline=deadline
    )
    return reply.payload


async def ask_once(
    bus: Bus,
    leases: Leases,
    key: HttpId,
    wanted: Record,
    outgoing: Outgoing,
    context: RequestContext,
    on_claimed: Callable[[bool], None],
) -> Settled:
    """Ask under the key's lease, or take over the outcome of whoever asked; ``on_claimed`` is told which it was.

    Raises Conflict, InProgress and the errors of the bridge. The Router's refusals are outcomes, too.
    """

    async def effect() -> Verdict:
        on_claimed(True)
        reply = await ask(bus, outgoing, context.deadline)
        try:
            return Verdict(Outcome(200, read_reply(reply, context)), Keep.REPLAY)
        except GatewayError as error:
            return _verdict(error, context)

    settled = await leases.call(bus, key.record_key(DECIDE), wanted, effect, context.deadline)
    if not settled.held.mine:
        on_claimed(False)
    return settled


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
