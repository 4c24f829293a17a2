"""``POST /api/v1/usage`` and ``POST /api/v1/usage/batch``."""

from __future__ import annotations

import time
from typing import Any, Final

from flask import Blueprint, Response
from marshmallow import ValidationError

from bridge import BridgeError
from gateway import json
from gateway.access import Permission, requires
from gateway.blueprints import once
from gateway.blueprints.body import drop_repeated, load, sentence_of, take_ids
from gateway.context import RequestContext, normal_trace_id
from gateway.door import respond
from gateway.errors import GatewayError, conflict, from_bridge, invalid_request
from gateway.idempotency import Conflict, KeyType, fingerprint, mark_http_id
from gateway.operations import meter
from gateway.operations.publish import Publication, Published
from gateway.runtime import context, runtime
from gateway.schemas import UsageBatch, UsageEvent
from gateway.settings import Settings

blueprint = Blueprint("usage", __name__, url_prefix="/api/v1")
_EVENT = UsageEvent()
_BATCH = UsageBatch()
_AHEAD_MS: Final = 5 * 60 * 1000
"""How far a client's clock may be ahead (wire contract, "UsageEvent")."""


@blueprint.post("/usage")
@requires(Permission.USAGE_WRITE)
def usage() -> Response:
    """Store a usage event for metering, at most once a tenant and assignment (or request)."""
    event = load(_EVENT, id_field=KeyType.USAGE_ID)
    _check_time(event, runtime().settings)
    take_ids(event, request_id=False)
    return once.publish(_publication(event, context()))


@blueprint.post("/usage/batch")
@requires(Permission.USAGE_WRITE)
def batch() -> Response:
    """Store up to 1,000 usage events; one outcome an event, in the order given."""
    parts = runtime()
    events = load(_BATCH)["events"]
    ctx = context()
    outcomes: list[dict[str, Any]] = [{} for _ in events]
    items: dict[int, meter.BatchItem] = {}
    for index, raw in enumerate(events):
        try:
            items[index] = _item(raw, ctx, parts.settings)
        except GatewayError as error:
            outcomes[index] = _outcome("invalid", raw, error)
    queue = list(items.values())
    try:
        results = (
            parts.cross(lambda bus: meter.meter_batch(bus, queue), ctx.deadline, publishing=True)
            if queue
            else []
        )
    except GatewayError as error:
        once.count_unsettled(meter.USAGE, error, len(queue))
        raise
    for index, result in zip(items, results, strict=True):
        outcomes[index] = _batch_outcome(events[index], result)
    summary = dict.fromkeys(("accepted", "duplicate", "conflict", "invalid", "unknown"), 0)
    for outcome in outcomes:
        summary[outcome["outcome"]] += 1
    return respond(
        {"ok": True, "results": outcomes, "summary": summary, "context": ctx.correlation()}
    )


def _item(raw: Any, ctx: RequestContext, settings: Settings) -> meter.BatchItem:
    """One event of a batch. Raises GatewayError for what a single call would refuse."""
    try:
        event: dict[str, Any] = _EVENT.load(raw)
    except ValidationError as error:
        sentence, fields = sentence_of(error)
        raise invalid_request(sentence, fields=fields) from None
    drop_repeated(event)
    if KeyType.USAGE_ID not in event:
        raise invalid_request("usage_id is required.", fields={"usage_id": "is required"})
    _check_time(event, settings)
    if (trace_id := event.pop("trace_id", None)) is not None:
        ctx = ctx.with_body_ids(request_id=None, trace_id=normal_trace_id(trace_id))
    publication = _publication(event, ctx)
    first = publication.first(runtime().bridge.server_now())
    return meter.BatchItem(publication, first, meter.pair_of(ctx.tenant, event))


def _publication(event: dict[str, Any], ctx: RequestContext) -> Publication:
    parts = runtime()
    return meter.event(
        mark_http_id(ctx.tenant, KeyType.USAGE_ID, event[KeyType.USAGE_ID]),
        fingerprint(event),
        event,
        ctx,
        subject=parts.settings.usage_subject,
        on_claimed=parts.counter(ctx.tenant, KeyType.USAGE_ID, meter.USAGE),
        on_metered=parts.usage_counter(ctx.tenant),
    )


def _batch_outcome(raw: Any, result: meter.BatchResult) -> dict[str, Any]:
    match result:
        case Published(outcome=outcome, held=held):
            name = "accepted" if outcome.status == 202 else "duplicate"
            answer = _outcome(name, raw) | {"seq": outcome.body["seq"]}
            if name == "duplicate":
                answer["duplicate_of"] = outcome.body["duplicate_of"]
            if not held.mine:
                answer["replayed"] = True
            return answer
        case Conflict():
            return _refused("conflict", raw, conflict())
        case BridgeError():
            return _refused("unknown", raw, from_bridge(result, publishing=True))


def _refused(name: str, raw: Any, error: GatewayError) -> dict[str, Any]:
    once.count_unsettled(meter.USAGE, error)
    return _outcome(name, raw, error)


def _outcome(name: str, raw: Any, error: GatewayError | None = None) -> dict[str, Any]:
    usage_id = raw.get("usage_id") if isinstance(raw, dict) else None
    # As it came, whatever it is; unless it is nested more deeply than an answer can be.
    given = usage_id if isinstance(usage_id, str) or json.fits(usage_id) else None
    outcome: dict[str, Any] = {"usage_id": given, "outcome": name}
    if error is not None:
        outcome["error"] = {
            "code": error.code,
            "message": error.message,
            "details": error.details,
        }
    return outcome


def _check_time(event: dict[str, Any], settings: Settings) -> None:
    now_ms = time.time() * 1000
    if event["timestamp"] > now_ms + _AHEAD_MS:
        raise invalid_request("timestamp is more than 5 minutes ahead (milliseconds since 1970).")
    oldest_ms = now_ms - settings.usage_dedupe_window_ms
    if event["timestamp"] < oldest_ms and not settings.usage_accept_late:
        raise invalid_request(
            f"timestamp is older than {settings.usage_dedupe_window_ms} ms, within which usage is"
            " counted once (milliseconds since 1970)."
        )
