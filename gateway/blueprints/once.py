"""Once: the way of a request that has an id, around its one hop: local replay, hop, remember, answer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from flask import Response, g

from gateway import json
from gateway.door import respond
from gateway.errors import ErrorCode, GatewayError, as_answered, conflict
from gateway.idempotency import Conflict, Held, HttpId, Keep, Outcome, Record, Replay, State
from gateway.operations import decide
from gateway.operations.publish import Publication, publish_once
from gateway.runtime import context, runtime
from gateway.sticky import Stickiness
from gateway.telemetry.metrics import declarations as metrics

_UNSETTLED: Final[Mapping[str, str]] = {
    ErrorCode.IDEMPOTENCY_CONFLICT: "conflict",
    ErrorCode.IN_PROGRESS: "in_progress",
}


def publish(publication: Publication) -> Response:
    """Answer a publish: from this worker's memory, or by claim and publish on the loop."""
    with _counted(publication.operation):
        return _publish(publication)


def _publish(publication: Publication) -> Response:
    parts = runtime()
    if (known := _known(publication.record_key, publication.fingerprint)) is not None:
        publication.on_claimed(False)
        return known
    first = publication.first(parts.bridge.server_now())
    published = parts.cross(
        lambda bus: publish_once(bus, publication, first),
        publication.context.deadline,
        publishing=True,
    )
    return _answer(
        publication.record_key, publication.fingerprint, published.outcome, published.held
    )


def decide_once(
    key: HttpId,
    fingerprint: str,
    asked: decide.Question,
    count_sticky: Callable[[Stickiness], None],
) -> Response:
    """Answer a decide with an id: from this worker's memory, or under the id's lease."""
    with _counted(decide.DECIDE):
        return _decide(key, fingerprint, asked, count_sticky)


def _decide(
    key: HttpId,
    fingerprint: str,
    asked: decide.Question,
    count_sticky: Callable[[Stickiness], None],
) -> Response:
    parts = runtime()
    record_key = key.record_key(decide.DECIDE)
    count = parts.counter(key.tenant_id, key.key_type, decide.DECIDE)
    if (known := _known(record_key, fingerprint)) is not None:
        count(False)
        return known
    wanted = Record.new(State.IN_PROGRESS, fingerprint, asked.context, parts.bridge.server_now())
    outcome = parts.cross(
        lambda bus: decide.ask_once(
            bus,
            asked,
            parts.sessions,
            count_sticky,
            leases=parts.leases,
            key=key,
            wanted=wanted,
            on_claimed=count,
        ),
        asked.context.deadline,
        publishing=False,
    )
    settled = outcome.settled
    if settled.keep is Keep.REPLAY:
        response = _answer(record_key, fingerprint, settled.outcome, settled.held)
    else:
        g.replayed, g.first_span = not settled.held.mine, settled.held.record.span
        headers = _headers(g.replayed, None) | _refusal(settled.outcome)
        response = respond(settled.outcome.body, settled.outcome.status, headers)
    response.headers.update(sticky_header(outcome.sticky))
    return response


def count_unsettled(operation: str, error: GatewayError, times: int = 1) -> None:
    """Count requests with an id that got no outcome: a conflict, an equal one at work, an unknown outcome.

    Unknown ones are remembered, too: somebody will want to know which.
    """
    if error.code == ErrorCode.OUTCOME_UNKNOWN:
        metrics.UNKNOWN_OUTCOMES.labels(operation).inc(times)
        runtime().status.history.unknown(context(), operation, times)
    elif (outcome := _UNSETTLED.get(error.code)) is not None:
        metrics.CLAIMS.labels(operation, outcome).inc(times)


@contextlib.contextmanager
def _counted(operation: str) -> Iterator[None]:
    try:
        yield
    except GatewayError as error:
        count_unsettled(operation, error)
        raise


def sticky_header(sticky: Stickiness | None) -> dict[str, str]:
    """What became of the request's session; nothing where it has none."""
    g.sticky = sticky
    if sticky is Stickiness.MOVED:  # counted as a hit before the Router was asked
        runtime().sticky_counter(context().tenant)(sticky)
    return {} if sticky is None else {"X-Sticky": sticky}


def _known(record_key: str, fingerprint: str) -> Response | None:
    try:
        replay = runtime().replays.get(record_key, fingerprint)
    except Conflict:
        raise conflict() from None
    if replay is None:
        return None
    g.replayed, g.first_span = True, replay.span
    headers = _headers(True, replay.expires_in_seconds)
    if replay.status >= 400:
        headers |= _refusal(Outcome(replay.status, json.loads(replay.body)))
    return Response(replay.body, replay.status, headers, mimetype="application/json")


def _answer(record_key: str, fingerprint: str, outcome: Outcome, held: Held) -> Response:
    body = json.dumps(outcome.body)
    expires_in = None
    if held.expires_at is not None:
        span = held.record.span
        replay = Replay(outcome.status, body, fingerprint, held.expires_at, span)
        expires_in = replay.expires_in_seconds
        runtime().replays.put(record_key, replay)
    g.replayed, g.first_span = not held.mine, held.record.span
    headers = _headers(g.replayed, expires_in) | _refusal(outcome)
    return Response(body, outcome.status, headers, mimetype="application/json")


def _headers(replayed: bool, expires_in_seconds: int | None) -> dict[str, str]:
    if not replayed:
        return {}
    headers = {"Idempotency-Replayed": "true"}
    if expires_in_seconds is not None:
        headers["Idempotency-Expires"] = str(expires_in_seconds)
    return headers


def _refusal(outcome: Outcome) -> dict[str, str]:
    """Make an outcome that is an error known to the access log; the headers that every such answer has."""
    if outcome.status < 400:
        return {}
    g.error = as_answered(outcome.status, outcome.body)
    return dict(g.error.headers)
