"""The OpenAPI 3.1 document, made from the schemas that validate.

`ENDPOINTS` says what each path takes and answers; a test compares it with the routes that exist.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from marshmallow import Schema

from gateway import schemas

_ERRORS: Final[Mapping[int, str]] = {
    400: "The request is wrong; the message says where.",
    401: "No or no valid credentials.",
    403: "The caller may not do this, or names another's tenant.",
    404: "There is no such thing: a policy or extension of the Router, a result, an id.",
    408: "The request did not arrive in time; nothing was done.",
    409: "The id was used for something else, or its first request is still at work.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    429: "Over a limit of requests, nothing was done; `Retry-After` says when to come back.",
    500: "The Router or the gateway failed.",
    502: "The Router's reply is not one.",
    503: "Nothing was done; `Retry-After` says when to try again.",
    504: "No answer in time. `outcome_unknown`: it may have been stored; send the same request again.",
}
_EVERY_GET: Final = (400, 401, 403, 429, 500, 502, 503, 504)
_EVERY_POST: Final = (*_EVERY_GET, 408, 413, 415)
_ONCE: Final = (*_EVERY_POST, 409)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One path and method."""

    method: str
    path: str
    summary: str
    tag: str
    answers: Mapping[int, tuple[str, type[Schema] | None]]
    body: type[Schema] | None = None
    examples: Mapping[str, Any] = field(default_factory=dict)
    errors: tuple[int, ...] = ()
    public: bool = False
    older_body: type[Schema] | None = None
    query: type[Schema] | None = None
    media: str = "text/plain"


_DECIDE: Final = {
    "decide": {
        "task": {"type": "chat", "payload": {"text": "hello there"}},
        "policy_id": "default",
        "context": {"session_id": "s-1", "user_id": "u-1"},
    },
    "older envelope": {
        "message": {
            "message_id": "m-1",
            "tenant_id": "acme",
            "message_type": "chat",
            "payload": '{"text": "hello there"}',
        },
        "policy_id": "default",
    },
}
_ASSIGNMENT: Final = {
    "assignment": {
        "assignment_id": "a-1",
        "executor": {"provider_id": "openai:gpt-4o", "channel": "nats"},
        "job": {"type": "chat", "payload": {"text": "hello there"}},
        "options": {"priority": 50, "deadline_ms": 5000},
    }
}
_ACK: Final = {"ack": {"ack_id": "k-1", "assignment_id": "a-1", "status": "accepted"}}


def _usage() -> Mapping[str, Any]:
    return {
        "usage": {
            "usage_id": "u-1",
            "assignment_id": "a-1",
            "provider_id": "openai:gpt-4o",
            "event_type": "chat",
            "latency_ms": 850,
            "cost": 0.012,
            "status": "success",
            # Of now: an event older than the window would be refused.
            "timestamp": int(time.time() * 1000),
        }
    }


def _batch() -> Mapping[str, Any]:
    return {"batch": {"events": [_usage()["usage"]]}}


def endpoints() -> tuple[Endpoint, ...]:
    """Every documented path."""
    stored = {202: ("Stored, once.", schemas.ReceiptAnswer)}
    return (
        Endpoint(
            "post", "/api/v1/routes/decide", "Ask the Router which provider takes a task", "work",
            {200: ("The Router's decision.", schemas.DecisionAnswer)},
            schemas.DecideRequest, _DECIDE, (*_ONCE, 404), older_body=schemas.DecideEnvelope,
        ),
        Endpoint(
            "post", "/api/v1/assignments", "Store an assignment for the workers", "work",
            stored, schemas.ExecAssignment, _ASSIGNMENT, _ONCE,
        ),
        Endpoint(
            "post", "/api/v1/acks", "Store a worker's yes or no to an assignment", "work",
            stored, schemas.ExecAssignmentAck, _ACK, _ONCE,
        ),
        Endpoint(
            "post", "/api/v1/usage", "Meter what a task has cost, once", "work",
            {
                202: ("This event is the one that counts.", schemas.UsageReceiptAnswer),
                200: ("Another event of the same pair counts.", schemas.UsageReceiptAnswer),
            },
            schemas.UsageEvent, _usage(), _ONCE,
        ),
        Endpoint(
            "post", "/api/v1/usage/batch", "Meter up to 1,000 events, each once", "work",
            {200: ("One outcome an event, in the order given.", schemas.BatchAnswer)},
            schemas.UsageBatch, _batch(), _EVERY_POST,
        ),
        Endpoint(
            "get", "/api/v1/results/{assignment_id}", "The result of an assignment", "work",
            {200: ("The result.", schemas.ResultAnswer)},
            errors=(*_EVERY_GET, 404), query=schemas.ResultQuery,
        ),
        Endpoint(
            "get", "/api/v1/results", "The same for an id that a path cannot hold", "work",
            {200: ("The result.", schemas.ResultAnswer)},
            errors=(*_EVERY_GET, 404), query=schemas.ResultQuery,
        ),
        Endpoint(
            "get", "/api/v1/results/stream", "Results as they come (server-sent events)", "work",
            {200: ("`event: result` with a result, `event: heartbeat`.", None)},
            errors=_EVERY_GET, query=schemas.StreamQuery, media="text/event-stream",
        ),
        Endpoint(
            "get", "/api/v1/operations/{operation}/{id}", "What is known of an id", "work",
            {200: ("Its state.", schemas.OperationAnswer)},
            errors=(*_EVERY_GET, 404),
        ),
        Endpoint(
            "get", "/api/v1/operations/{operation}", "The same for an id that a path cannot hold",
            "work", {200: ("Its state.", schemas.OperationAnswer)},
            errors=(*_EVERY_GET, 404), query=schemas.OperationQuery,
        ),
        Endpoint(
            "get", "/livez", "Whether the worker lives", "operational",
            {200: ("It lives.", schemas.LivezAnswer), 503: ("It does not.", schemas.LivezAnswer)},
            public=True,
        ),
        Endpoint(
            "get", "/readyz", "Whether requests can succeed now", "operational",
            {200: ("They can.", schemas.ReadyzAnswer), 503: ("`missing` says why not.", schemas.ReadyzAnswer)},
            public=True,
        ),
        Endpoint(
            "get", "/health", "For older clients", "operational",
            {200: ("The gateway answers.", schemas.HealthAnswer)}, public=True,
        ),
        Endpoint(
            "get", "/_health", "For older clients", "operational",
            {200: ("The gateway answers.", schemas.HealthAnswer)}, public=True,
        ),
        Endpoint(
            "get", "/metrics", "Prometheus exposition", "operational",
            {200: ("All workers' metrics.", None)}, public=True,
        ),
        Endpoint(
            "get", "/status", "What the instance is doing; a page where HTML is accepted", "operational",
            {200: ("All workers' status.", schemas.StatusAnswer)},
            errors=(401, 403, 429, 503),
        ),
    )  # fmt: skip


def document(auth_mode: str = "api_key") -> dict[str, Any]:
    """The OpenAPI document as a dict, for a gateway with this ``AUTH_MODE``."""
    spec = APISpec(
        title="Beamline Gateway",
        version=_version(),
        openapi_version="3.1.0",
        info={
            "description": "HTTP in front of NATS: routing decisions, assignments, acks, usage.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        plugins=[MarshmallowPlugin(schema_name_resolver=_schema_name)],
    )
    _add_security(spec, auth_mode)
    for parameter in _PARAMETERS:
        spec.components.parameter(parameter["name"], parameter["in"], parameter)
    for name, text in _HEADERS.items():
        spec.components.header(name, {"description": text, "schema": {"type": "integer"}})
    for endpoint in endpoints():
        spec.path(endpoint.path, operations={endpoint.method: _operation(endpoint)})
    return spec.to_dict()


_PARAMETERS: Final[tuple[dict[str, Any], ...]] = (
    {"name": "X-Request-ID", "in": "header", "description": "Id of this request; made if absent.",
     "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"}},
    {"name": "X-Trace-ID", "in": "header", "description": "Trace id: 32 hex digits or a UUIDv4.",
     "schema": {"type": "string"}},
    {"name": "traceparent", "in": "header", "description": "W3C trace context, continued.",
     "schema": {"type": "string"}},
    {"name": "X-CP-Phase", "in": "header", "description": "Checkpoint phase, cp0 … cp8.",
     "schema": {"type": "string"}},
    {"name": "X-Request-Timeout-Ms", "in": "header",
     "description": "A shorter deadline than the gateway's own.",
     "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"}},
    {"name": "Idempotency-Key", "in": "header",
     "description": "Another spelling of the id that makes the request idempotent.",
     "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"}},
)  # fmt: skip


_LIMIT_HEADERS: Final = {
    "X-RateLimit-Limit": "Requests that a window has, where a limit is on.",
    "X-RateLimit-Remaining": "Those of them that remain.",
    "X-RateLimit-Reset": "Seconds until the window ends, rounded up.",
}
_HEADERS: Final = {"Retry-After": "Seconds to wait.", **_LIMIT_HEADERS}
_HEADERS_OF: Final[Mapping[int, Mapping[str, str]]] = {
    429: _HEADERS,
    503: {"Retry-After": _HEADERS["Retry-After"]},
}
"""Error → the headers that it has beside those of every answer."""


_SECURITY: Final[Mapping[str, tuple[Mapping[str, Any], list[dict[str, list[str]]]]]] = {
    "api_key": (
        {
            "key": {"type": "http", "scheme": "bearer", "description": "An API key: `blk_…`."},
            "key_header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        },
        [{"key": []}, {"key_header": []}],
    ),
    "jwt": (
        {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        [{"token": []}],
    ),
    "headers": (
        {
            "tenant": {"type": "apiKey", "in": "header", "name": "X-Tenant-ID"},
            "role": {"type": "apiKey", "in": "header", "name": "X-Role"},
        },
        [{"tenant": [], "role": []}],
    ),
}
"""`AUTH_MODE` → its schemes, and which of them make a request pass."""


def _add_security(spec: APISpec, auth_mode: str) -> None:
    schemes, alternatives = _SECURITY[auth_mode]
    for name, scheme in schemes.items():
        spec.components.security_scheme(name, dict(scheme))
    spec.options["security"] = alternatives


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": re.sub(r"\W+", "_", f"{endpoint.method}{endpoint.path}"),
        "tags": [endpoint.tag],
        "responses": {
            str(status): _response(
                text, schema, endpoint.media, {} if endpoint.public else _LIMIT_HEADERS
            )
            for status, (text, schema) in endpoint.answers.items()
        },
    }
    parameters: list[Any] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]
    if endpoint.query is not None:
        parameters.append({"in": "query", "schema": endpoint.query})
    for status in endpoint.errors:
        operation["responses"][str(status)] = _response(
            _ERRORS[status], schemas.ErrorAnswer, headers=_HEADERS_OF.get(status, {})
        )
    if endpoint.public:
        operation["security"] = []
    if endpoint.body is not None:
        parameters += [parameter["name"] for parameter in _PARAMETERS]
        operation["requestBody"] = {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [endpoint.body, endpoint.older_body]}
                    if endpoint.older_body is not None
                    else endpoint.body,
                    "examples": {name: {"value": v} for name, v in endpoint.examples.items()},
                }
            },
        }
    if parameters:
        operation["parameters"] = parameters
    return operation


def _response(
    text: str,
    schema: type[Schema] | None,
    media: str = "text/plain",
    headers: Collection[str] = (),
) -> dict[str, Any]:
    content = {media: {}} if schema is None else {"application/json": {"schema": schema}}
    response = {"description": text, "content": content}
    return {**response, "headers": {name: name for name in headers}} if headers else response


def _schema_name(schema: Any) -> str:
    cls = schema if isinstance(schema, type) else type(schema)
    return str(cls.__name__)


def _version() -> str:
    try:
        return version("beamline-gateway")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"
