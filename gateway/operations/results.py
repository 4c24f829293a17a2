"""Results: take workers' results in, keep them for those who wait, meter them.

A result is kept in the bucket ``BEAMLINE_RESULTS`` (TTL ``RESULTS_TTL_MS``), the first one of an assignment wins, and
it yields one usage event under the same pair as a client's report. Both effects are idempotent, and the message is
acknowledged after them: redelivered after a crash, it changes nothing. What is wrong with a message itself is a
`Reject`; trouble of our own is raised as it is and retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from marshmallow import ValidationError

from bridge import Bus, Delivery, Refusal, Refused, Reject, subject_covers
from gateway import json
from gateway.context import UNKNOWN_PHASE, RequestContext, cp_phase_of, new_trace_id
from gateway.context import normal_trace_id as normal
from gateway.idempotency import result_keys
from gateway.identity import Principal
from gateway.names import TENANT_PATTERN
from gateway.operations.deliveries import headers_of
from gateway.operations.meter import FROM_RESULT, compose_event, pair_of
from gateway.operations.outgoing import Outgoing
from gateway.schemas.base import WIRE_VERSION
from gateway.schemas.result import ExecResult
from gateway.telemetry.tracing.tracer import current_trace_id

BUCKET: Final = "BEAMLINE_RESULTS"
_SCHEMA: Final = ExecResult()
_EFFECT_SECONDS: Final = 10.0
_COST_PLACES: Final = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """What is taken in; from the settings."""

    subject_allowlist: tuple[str, ...]
    tenant_allowlist: frozenset[str]
    usage_subject: str
    usage_window_ms: int
    meter: bool


@dataclass(frozen=True, slots=True)
class Intake:
    """A result that has passed: as it is kept, and under whose tenant and ids."""

    tenant_id: str
    body: dict[str, Any]
    value: bytes
    context: RequestContext


async def take_in(
    bus: Bus, delivery: Delivery, rules: IntakeRules, on_metered: Callable[[str, bool], None]
) -> str:
    """Keep and meter one result; whose it is. Raises Reject for a message at fault; with NATS away, the bridge's
    errors.

    ``on_metered`` is told the tenant, and whether the event was the first of its pair.
    """
    intake = check(delivery, rules)
    deadline = time.monotonic() + _EFFECT_SECONDS
    if rules.meter:  # first, so that whoever sees the result knows that it is metered
        event = _usage_event(intake, rules)
        ack = await bus.publish(
            event.subject, event.payload, headers=event.headers, deadline=deadline
        )
        on_metered(intake.tenant_id, not ack.duplicate)
    bucket = bus.bucket(BUCKET)
    for key in result_keys(
        intake.tenant_id,
        assignment_id=intake.body.get("assignment_id"),
        request_id=intake.body.get("request_id"),
    ):
        try:
            await bucket.create(key, intake.value, deadline=deadline)
        except Refused as error:
            if (
                error.reason is Refusal.TOO_LARGE
            ):  # a message of the largest size, with what is kept around it
                raise Reject("too_large", "too large to be kept", final=True) from None
            if error.reason is not Refusal.REVISION:  # there already: the first one wins
                raise
    return intake.tenant_id


def check(delivery: Delivery, rules: IntakeRules) -> Intake:
    """The result in a message, or the reason why it is none (wire contract, "ExecResult")."""
    headers = headers_of(delivery)
    if not any(subject_covers(allowed, delivery.subject) for allowed in rules.subject_allowlist):
        raise Reject("subject_not_allowed", "the subject is not in NATS_SUBJECT_ALLOWLIST")
    if headers and "nats-msg-id" not in headers:
        raise Reject("msg_id_missing", "headers without Nats-Msg-Id")
    try:
        raw = json.loads(delivery.payload)
    except json.Unreadable:
        raise Reject("unreadable", "the payload is not JSON") from None
    if not isinstance(raw, dict):
        raise Reject("unreadable", "the payload is not a JSON object")
    for name in ("version", "tenant_id", "trace_id"):  # headers win over fields of the same name
        if name in headers:
            raw[name] = headers[name]
    if raw.get("version", WIRE_VERSION) != WIRE_VERSION:
        raise Reject("version_unsupported", 'the version is not "1"')
    tenant_id = raw.get("tenant_id")
    if not isinstance(tenant_id, str) or not TENANT_PATTERN.fullmatch(tenant_id):
        raise Reject("tenant_missing", "no tenant, or a malformed one")
    if rules.tenant_allowlist and tenant_id not in rules.tenant_allowlist:
        raise Reject("tenant_not_allowed", "the tenant is not in GATEWAY_TENANT_ALLOWLIST")
    try:
        body: dict[str, Any] = _SCHEMA.load(raw)
    except ValidationError as error:
        raise Reject("schema_invalid", f"not an ExecResult: {sorted(error.messages)}") from None
    if body["timestamp"] < time.time() * 1000 - rules.usage_window_ms:
        # It does not get younger: no redelivery.
        raise Reject("late", "older than USAGE_DEDUPE_WINDOW_MS", final=True)
    if not json.fits(body):
        raise Reject("unreadable", "the payload is nested too deeply")
    return Intake(tenant_id, body, json.dumps(body), _context(tenant_id, body, headers))


def _context(tenant_id: str, body: dict[str, Any], headers: dict[str, str]) -> RequestContext:
    """The ids under which the usage event goes out."""
    now = time.monotonic()
    return RequestContext(
        request_id=body.get("request_id", ""),
        trace_id=normal(body.get("trace_id", "")) or current_trace_id() or new_trace_id(),
        cp_phase=cp_phase_of(headers.get("cp_phase"), UNKNOWN_PHASE),
        timeout_seconds=_EFFECT_SECONDS,
        deadline=now + _EFFECT_SECONDS,
        principal=Principal(tenant_id=tenant_id, roles=(), method="nats"),
    )


def _usage_event(intake: Intake, rules: IntakeRules) -> Outgoing:
    body = {
        **intake.body,
        "event_type": intake.body["job"]["type"],
        # Workers add up floats; the contract's usage event has 9 places at most.
        "cost": round(intake.body["cost"], _COST_PLACES),
    }
    outgoing = compose_event(
        body, intake.context, subject=rules.usage_subject, pair=pair_of(intake.tenant_id, body)
    )
    headers = {**outgoing.headers, "usage_source": FROM_RESULT}
    return Outgoing(outgoing.subject, outgoing.payload, headers)


# -- waiting ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which results a waiter wants."""

    provider_id: str | None = None
    provider_exclude: frozenset[str] = frozenset()

    def accepts(self, result: dict[str, Any]) -> bool:
        """Whether this one is wanted."""
        provider = result.get("provider_id")
        return (self.provider_id is None or provider == self.provider_id) and (
            provider not in self.provider_exclude
        )


class Feed:
    """The results under one key (or one key's prefix), as they come. Lives on the loop.

    It listens before it reads, so that nothing falls in between; what it hears only wakes it, what it tells is read
    from the bucket. It reads again every second, since a wake-up may be lost with a connection.
    """

    def __init__(self, key: str, wanted: Filter) -> None:
        self._key = key
        self._wanted = wanted
        self._told: set[int] = set()

    async def next(self, bus: Bus, deadline: float) -> list[dict[str, Any]]:
        """The results that have not been told yet; waits for one until ``deadline``, then none."""
        bucket = bus.bucket(BUCKET)
        async with bus.wakeups(f"$KV.{BUCKET}.{self._key}") as wakeup:
            while True:
                entries = await bucket.entries(self._key, deadline=deadline + _READ_SECONDS)
                fresh = [entry for entry in entries if entry.revision not in self._told]
                results = [r for r in _decoded(e.value for e in fresh) if self._wanted.accepts(r)]
                remaining = deadline - time.monotonic()
                if results or remaining <= 0:
                    break
                await wakeup(min(remaining, _READ_AGAIN_SECONDS))
        # Only now: what is cut off before it is handed over will be told by the next call.
        self._told.update(entry.revision for entry in fresh)
        return results


_READ_AGAIN_SECONDS: Final = 1.0
_READ_SECONDS: Final = 1.0


def _decoded(values: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    for value in values:
        result = json.loads(value)
        if isinstance(result, dict):
            yield result
