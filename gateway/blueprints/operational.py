"""Probes and metrics: for orchestrators, load balancers and Prometheus. No credentials, no NATS call."""

from __future__ import annotations

from flask import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from gateway.door import respond
from gateway.errors import ErrorCode, GatewayError
from gateway.runtime import runtime
from gateway.telemetry.metrics.exposition import expose
from gateway.telemetry.metrics.files import Unsettled

blueprint = Blueprint("operational", __name__)


@blueprint.get("/livez")
def livez() -> Response:
    """Whether this process and its loop thread live. Never depends on NATS."""
    alive = runtime().bridge.health().loop_alive
    return respond({"status": "ok" if alive else "failed"}, 200 if alive else 503)


@blueprint.get("/readyz")
def readyz() -> Response:
    """Whether requests can succeed now; says what is missing."""
    parts = runtime()
    health = parts.bridge.health()
    missing = list(health.missing)
    if parts.draining.is_set():
        missing.insert(0, "draining: this worker is stopping")
    findings = [str(finding) for finding in health.findings]
    body = {
        "status": "not_ready" if missing else "ready",
        "missing": missing,
        "findings": findings,
    }
    return respond(body, 503 if missing else 200)


@blueprint.get("/health")
@blueprint.get("/_health")
def health() -> Response:
    """For older clients: the gateway answers."""
    return respond({"status": "ok", "service": "beamline-gateway"})


@blueprint.get("/metrics")
def metrics_route() -> Response:
    """The Prometheus exposition of all workers of this instance, unless it has an address of its own."""
    if runtime().settings.metrics_bind is not None:
        raise NotFound
    headers = request.headers
    try:
        found = expose(headers.get("Accept", ""), headers.get("Accept-Encoding", ""))
    except Unsettled as error:
        raise GatewayError(ErrorCode.UNAVAILABLE, f"{error}; try again.") from error
    return Response(found.body, 200, found.headers)
