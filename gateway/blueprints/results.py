"""``GET /api/v1/results/{assignment_id}`` (long poll) and ``GET /api/v1/results/stream`` (server-sent events)."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any, Final

from flask import Blueprint, Response, g, request

from gateway import json
from gateway.access import Permission, requires
from gateway.admission import Standing
from gateway.blueprints.query import load_query
from gateway.door import respond
from gateway.errors import ErrorCode, GatewayError, invalid_request
from gateway.idempotency import result_key
from gateway.operations.results import Feed, Filter
from gateway.runtime import Runtime, context, runtime
from gateway.schemas import ResultQuery, StreamQuery
from gateway.telemetry.metrics import declarations as metrics

blueprint = Blueprint("results", __name__, url_prefix="/api/v1/results")
_RESULT: Final = ResultQuery()
_STREAM: Final = StreamQuery()
_READ_SECONDS: Final = 2.0
_SLICE_SECONDS: Final = 0.25
"""How often a waiting request looks whether its client is still there, and whether the worker is stopping."""


@blueprint.get("/<path:assignment_id>")
@blueprint.get("", defaults={"assignment_id": None})
@requires(Permission.RESULTS_READ)
def result(assignment_id: str | None) -> Response:
    """The result of an assignment, waiting for it up to ``wait_ms``."""
    query = load_query(_RESULT)
    named = query.get("assignment_id")
    if assignment_id is None and named is None:
        raise invalid_request("assignment_id is required, in the path or as ?assignment_id=.")
    if assignment_id is not None and named not in (None, assignment_id):
        raise invalid_request("the path and ?assignment_id= name different assignments.")
    assignment_id = assignment_id or named
    key = result_key(context().tenant, assignment_id=assignment_id)
    # A plain read does not wait, and needs no place among those that do.
    counted = query["wait_ms"] > 0
    waiting = _Waiting(runtime(), Feed(key, Filter()), patient=False, counted=counted)
    try:
        for found in waiting.until(time.monotonic() + query["wait_ms"] / 1000):
            if found:
                return respond({"ok": True, "result": found[0], "context": context().correlation()})
    finally:
        waiting.leave()
    raise GatewayError(ErrorCode.NOT_FOUND, "There is no result of this assignment (yet).")


@blueprint.get("/stream")
@requires(Permission.RESULTS_READ)
def stream() -> Response:
    """Results as they come, as server-sent events."""
    query = load_query(_STREAM)
    if ("assignment_id" in query) == ("request_id" in query):
        raise invalid_request("either assignment_id or request_id is required, not both.")
    key = result_key(
        context().tenant,
        assignment_id=query.get("assignment_id"),
        request_id=query.get("request_id"),
    )
    wanted = Filter(
        provider_id=query.get("provider_id"),
        provider_exclude=frozenset(query.get("provider_exclude", ())),
    )
    waiting = _Waiting(runtime(), Feed(key, wanted), patient=True, counted=True)
    events = _events(waiting, query["heartbeat_ms"] / 1000, query["close_after_ms"] / 1000)
    response = Response(events, 200, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Accel-Buffering"] = "no"
    # Called by the server at the end of the response, even where its first byte was never sent. The request's
    # place at the gate goes with it: the thread is busy until then.
    response.call_on_close(waiting.leave)
    response.call_on_close(runtime().gate.leave)
    g.inside = False
    return response


def _events(
    waiting: _Waiting, heartbeat_seconds: float, close_after_seconds: float
) -> Iterator[bytes]:
    end = time.monotonic() + close_after_seconds
    yield b": open\n\n"
    while (now := time.monotonic()) < end:
        heard = False
        try:
            for found in waiting.until(min(end, now + heartbeat_seconds)):
                for one in found:
                    heard = True
                    yield b"event: result\ndata: " + json.dumps(one) + b"\n\n"
                if heard:
                    break
        except GatewayError:  # the caller may not go on: its key was revoked, its token has ended
            return
        if waiting.over:
            return
        if not heard:
            yield b"event: heartbeat\ndata: {}\n\n"


class _Waiting:
    """A request that waits, in slices, so that a client that went and a worker that stops are noticed at once."""

    def __init__(self, parts: Runtime, feed: Feed, *, patient: bool, counted: bool) -> None:
        if counted and not parts.waiting.acquire(blocking=False):
            raise GatewayError(
                ErrorCode.OVERLOADED, "This worker has as many waiting requests as it takes."
            )
        if counted:
            metrics.WAITING.inc()
        self._parts = parts
        self._feed = feed
        self._patient = patient
        self._holds_place = counted
        self._standing = Standing(
            parts.admission,
            context().caller,
            request.headers,
            request.remote_addr or "",
            Permission.RESULTS_READ,
        )
        self._socket: socket.socket | None = request.environ.get("gunicorn.socket")
        self.over = False

    def until(self, end: float) -> Iterator[list[dict[str, Any]]]:
        """What each slice brought, until ``end``; ends early when nobody waits any more.

        Raises GatewayError 401, 403 or 503 when the caller may not wait any more.
        """
        while not self.over:
            self._standing.check()
            sliced = min(end, time.monotonic() + _SLICE_SECONDS)
            yield self._slice(sliced)
            # Before the end is looked at: a stream whose heartbeat is shorter than a slice gets here only once.
            self.over = self._parts.draining.is_set() or self._client_is_gone()
            if time.monotonic() >= end:
                return

    def _slice(self, end: float) -> list[dict[str, Any]]:
        try:
            return self._parts.cross(
                lambda bus: self._feed.next(bus, end), end + _READ_SECONDS, publishing=False
            )
        except GatewayError as error:
            if not self._patient:
                if error.code is ErrorCode.TIMEOUT:  # of this read, not of the client's wait
                    raise GatewayError(
                        ErrorCode.UNAVAILABLE, "NATS does not answer. Asking again is safe."
                    ) from error
                raise
            # An open stream outlives an outage of NATS; results that come meanwhile are read after it.
            time.sleep(max(0.0, end - time.monotonic()))
            return []

    def leave(self) -> None:
        """Give the place back; more than once is allowed."""
        self.over = True
        if self._holds_place:
            self._holds_place = False
            metrics.WAITING.dec()
            self._parts.waiting.release()

    def _client_is_gone(self) -> bool:
        if self._socket is None:
            return False
        try:
            return self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except (BlockingIOError, InterruptedError):
            return False
        except (OSError, ValueError):
            return True
