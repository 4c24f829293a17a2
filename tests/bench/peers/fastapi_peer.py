"""The gateway's work the usual way: FastAPI, uvicorn, pydantic and nats-py, one event loop a worker.

Written as a good engineer usually would: API key and role by a dependency, strict models, a claim in a key/value bucket
before a usage event is published under its id, sessions kept for a second, OpenTelemetry's instrumentation of FastAPI
(without the spans of ASGI's own messages) and a span for each message, Prometheus in multiprocess mode, a JSON line a
request, uvloop and httptools.

What it does not promise: a claim whose publish fails stays, and its repeat is answered as a duplicate although nothing
was stored; no fingerprint, no replayed body, no lease, no takeover; a lost connection fails what is under way; sessions
are of one worker; keys cannot be revoked; nothing is limited, redacted, drained or audited.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any

import nats
import orjson
from cachetools import TTLCache
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from nats.aio.client import Client
from nats.js.errors import KeyWrongLastSequenceError
from nats.js.kv import KeyValue
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest, multiprocess
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEYS = {os.environ["BENCH_KEY_DIGEST"]: ("acme", ("service",))}
PERMISSIONS = {"service": frozenset({"routes:decide", "usage:write"})}
DECIDE, USAGE = "beamline.router.v1.decide", "beamline.usage.v1.metered"

REQUESTS = Counter("peer_requests_total", "Requests.", ["route", "method", "status"])
LATENCY = Histogram("peer_latency_seconds", "Latency.", ["route", "method"])
CLAIMS = Counter("peer_claims_total", "Claims.", ["outcome"])
MESSAGES = Counter("peer_messages_total", "Messages.", ["subject", "outcome"])

log = logging.getLogger("peer.access")
log.setLevel(logging.INFO)
log.addHandler(logging.StreamHandler())
tracer = trace.get_tracer("peer")


class Strict(BaseModel):
    """Unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Task(Strict):
    """What is to be done."""

    type: str = Field(min_length=1, max_length=128)
    payload: dict[str, Any] | None = None
    payload_ref: str | None = None


class Decide(Strict):
    """A task that a provider is wanted for."""

    version: str = "1"
    tenant_id: str | None = None
    request_id: str | None = Field(default=None, pattern=r"^[!-~]{1,128}$")
    trace_id: str | None = None
    task: Task
    policy_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.:-]{1,128}$")
    constraints: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    context: dict[str, Any] | None = None


class Usage(Strict):
    """A usage event."""

    version: str = "1"
    usage_id: str = Field(pattern=r"^[!-~]{1,128}$")
    tenant_id: str | None = None
    provider_id: str
    event_type: str
    latency_ms: int = Field(ge=0)
    cost: float = Field(ge=0)
    status: str = Field(pattern="^(success|error|timeout|cancelled)$")
    timestamp: int
    assignment_id: str | None = None
    request_id: str | None = None


class Fabric:
    """The connection of this worker."""

    client: Client
    claims: KeyValue


fabric = Fabric()
sessions: TTLCache[str, str] = TTLCache(50_000, 1.0)


@contextlib.asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Connect for as long as the worker lives."""
    fabric.client = await nats.connect(os.environ["NATS_URL"])
    js = fabric.client.jetstream()
    fabric.claims = await js.create_key_value(bucket="PEER_CLAIMS", ttl=300)
    with contextlib.suppress(nats.js.errors.BadRequestError):  # the gateway's stream holds it
        await js.add_stream(name="PEER_USAGE", subjects=[USAGE], duplicate_window=360)
    yield
    await fabric.client.drain()


class Measured:
    """A count, a latency and a line of log a request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, noting)
        seconds = time.perf_counter() - begun
        route = getattr(scope.get("route"), "path", "none")
        REQUESTS.labels(route, scope["method"], str(status)).inc()
        LATENCY.labels(route, scope["method"]).observe(seconds)
        span = trace.get_current_span().get_span_context()
        log.info(
            json.dumps(
                {
                    "event": "request",
                    "route": route,
                    "status": status,
                    "latency_ms": round(seconds * 1000, 3),
                    "trace_id": format(span.trace_id, "032x"),
                }
            )
        )


app = FastAPI(lifespan=lifespan)
app.add_middleware(Measured)


def tenant_of(permission: str, authorization: Annotated[str | None, Header()] = None) -> str:
    """The tenant of the key, if it may do this."""
    scheme, _, key = (authorization or "").partition(" ")
    known = KEYS.get(hashlib.sha256(key.encode()).hexdigest())
    if scheme.lower() != "bearer" or known is None:
        raise HTTPException(401, "The API key is not known.")
    tenant, roles = known
    if not any(permission in PERMISSIONS.get(role, ()) for role in roles):
        raise HTTPException(403, "The caller may not do this.")
    return tenant


def may_decide(authorization: Annotated[str | None, Header()] = None) -> str:
    """The tenant of a caller that may decide."""
    return tenant_of("routes:decide", authorization)


def may_meter(authorization: Annotated[str | None, Header()] = None) -> str:
    """The tenant of a caller that may meter."""
    return tenant_of("usage:write", authorization)


def headers_of(tenant: str, phase: str) -> dict[str, str]:
    """The headers of every message."""
    headers = {"version": "1", "tenant_id": tenant, "cp_phase": phase}
    propagate.inject(headers)
    return headers


@app.post("/api/v1/routes/decide")
async def decide(
    asked: Decide,
    response: Response,
    tenant: Annotated[str, Depends(may_decide)],
    x_cp_phase: Annotated[str, Header()] = "cp2",
) -> dict[str, Any]:
    """Ask the Router."""
    request_id = asked.request_id or str(uuid.uuid4())
    session = (asked.context or {}).get("session_id")
    body = asked.model_dump(exclude_none=True) | {"tenant_id": tenant, "request_id": request_id}
    if session is not None and (known := sessions.get(f"{tenant}/{session}")) is not None:
        body["metadata"] = {**body.get("metadata", {}), "preferred_provider_id": known}
    with tracer.start_as_current_span(
        "nats.request", kind=SpanKind.CLIENT, attributes={"subject": DECIDE, "tenant_id": tenant}
    ):
        reply = await fabric.client.request(
            DECIDE, orjson.dumps(body), timeout=5, headers=headers_of(tenant, x_cp_phase)
        )
    MESSAGES.labels(DECIDE, "ok").inc()
    answer: dict[str, Any] = orjson.loads(reply.data)
    if not answer.get("ok"):
        raise HTTPException(502, "The Router refused.")
    if session is not None:
        sessions[f"{tenant}/{session}"] = answer["decision"]["provider_id"]
    response.headers["X-Request-ID"] = request_id
    return {**answer, "context": {"request_id": request_id}}


@app.post("/api/v1/usage", status_code=202)
async def usage(
    event: Usage,
    response: Response,
    tenant: Annotated[str, Depends(may_meter)],
    x_cp_phase: Annotated[str, Header()] = "cp2",
) -> dict[str, Any]:
    """Claim the id, publish the event."""
    key = hashlib.sha256(f"{len(tenant)}:{tenant}{event.usage_id}".encode()).hexdigest()
    body = event.model_dump(exclude_none=True) | {"tenant_id": tenant}
    try:
        await fabric.claims.create(key, orjson.dumps({"usage_id": event.usage_id}))
    except KeyWrongLastSequenceError:
        CLAIMS.labels("repeated").inc()
        response.headers["Idempotency-Replayed"] = "true"
        return {"ok": True, "usage_id": event.usage_id, "emitted": False}
    CLAIMS.labels("first").inc()
    with tracer.start_as_current_span(
        "nats.publish", kind=SpanKind.PRODUCER, attributes={"subject": USAGE, "tenant_id": tenant}
    ):
        headers = headers_of(tenant, x_cp_phase) | {"Nats-Msg-Id": key}
        ack = await fabric.client.jetstream().publish(USAGE, orjson.dumps(body), headers=headers)
    MESSAGES.labels(USAGE, "ok").inc()
    return {"ok": True, "usage_id": event.usage_id, "emitted": True, "seq": ack.seq}


@app.get("/livez")
async def livez() -> dict[str, bool]:
    """Alive."""
    return {"ok": True}


@app.get("/metrics")
async def metrics(_request: Request) -> Response:
    """All workers' counts."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), media_type="text/plain")


def _trace() -> None:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    global tracer
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    tracer = trace.get_tracer("peer")
    FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])


if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
    _trace()
