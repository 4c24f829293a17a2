"""docs/ARCHITECTURE/PROTO_NATS_MAPPING.md and docs/SCHEMAS.md: the messages, field by field.

Fields come from the schemas that validate; what these cannot say (whose value it is) is text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from marshmallow import Schema, fields

from gateway import openapi, schemas
from gateway.json import dumps_readable

_MADE: Final = "made by the gateway where it is absent"
_OURS: Final = "`X-Request-ID`, else made by the gateway"
MAPPED: Final[tuple[tuple[str, str, Schema, Mapping[str, str]], ...]] = (
    (
        "`POST /api/v1/routes/decide` → `beamline.router.v1.decide`",
        "Request-reply. The answer is passed on as it came, its `context` restored.",
        schemas.DecideRequest(),
        {
            "version": "the same; `1` where it is absent",
            "tenant_id": "the caller's",
            "request_id": f"the same; {_OURS}",
            "trace_id": "the same; `X-Trace-ID` beats it; else the trace's",
            "idempotency_key": "the same; left out where there is an `assignment_id`",
            "metadata": "the same, with `preferred_provider_id` where the session has a provider",
        },
    ),
    (
        "`POST /api/v1/assignments` → `caf.exec.assign.v1`",
        "JetStream, `Nats-Msg-Id` = operation and claim.",
        schemas.ExecAssignment(),
        {
            "version": "the same; `1` where it is absent",
            "tenant_id": "the caller's",
            "assignment_id": "the same; `Idempotency-Key` is another spelling",
            "request_id": f"the same; {_OURS}",
            "correlation": f"its `trace_id`: the same; {_MADE}",
        },
    ),
    (
        "`POST /api/v1/acks` → `caf.exec.assign.v1.ack`",
        "JetStream, `Nats-Msg-Id` = operation and claim.",
        schemas.ExecAssignmentAck(),
        {
            "version": "the same; `1` where it is absent",
            "tenant_id": "the caller's",
            "ack_id": "the same; `Idempotency-Key` is another spelling",
            "correlation": f"its `trace_id`: the same; {_MADE}",
        },
    ),
    (
        "`POST /api/v1/usage`, each event of `/api/v1/usage/batch` → `beamline.usage.v1.metered`",
        "JetStream, `Nats-Msg-Id` = tenant and assignment, or tenant and request.",
        schemas.UsageEvent(),
        {
            "version": "the same; `1` where it is absent",
            "tenant_id": "the caller's",
            "usage_id": "no field: the header `usage_id`",
            "trace_id": f"the same; {_MADE}",
        },
    ),
)


"""A request's title, how it goes out, its schema, and what becomes of the fields that do not go out as they are."""


def mapping(generated: str) -> str:
    """docs/ARCHITECTURE/PROTO_NATS_MAPPING.md."""
    parts = []
    for title, how, schema, rules in MAPPED:
        parts += [f"## {title}", "", how, "", *_fields(schema, rules), ""]
    return _MAPPING.format(
        generated=generated,
        mappings="\n".join(parts),
        result="\n".join(_fields(schemas.ExecResult(), _RESULT)),
    )


def json_schemas(generated: str) -> str:
    """docs/SCHEMAS.md: the schemas that validate, as ``/openapi.json`` has them."""
    parts = ["# JSON schemas", "", generated, "", *_SCHEMAS_ARE, ""]
    for name, schema in openapi.document()["components"]["schemas"].items():
        written = dumps_readable(schema).decode().rstrip()
        parts += [f"## {name}", "", "```json", written, "```", ""]
    return "\n".join(parts)


_SCHEMAS_ARE: Final = (
    "Of every body that the gateway takes and gives (JSON Schema 2020-12), the same as in `/openapi.json` of a running",
    "gateway, where they are beside their endpoints. Requests are strict: a field that is not here is refused by name,",
    "and one that is absent is left out, never `null`. What a schema cannot say: [API_CONTRACTS.md](API_CONTRACTS.md).",
)

_RESULT: Final[Mapping[str, str]] = {
    "tenant_id": "the header's, else this: the tenant that is billed",
    "assignment_id": "`assignment_id`; the pair that usage counts by",
    "request_id": "`request_id`; counts where there is no assignment",
    "status": "`status`",
    "provider_id": "`provider_id`",
    "job": "its `type` is `event_type`",
    "latency_ms": "`latency_ms`",
    "cost": "`cost`",
    "timestamp": "`timestamp`",
    "trace_id": "`trace_id`",
    "version": "refused if it is another than `1`",
    "error_code": "nothing",
    "error_message": "nothing",
}
"""Of a result → of the usage event that comes of it."""


def _fields(schema: Schema, rules: Mapping[str, str]) -> Iterator[str]:
    yield "| field | required | is | on the wire |"
    yield "|---|---|---|---|"
    for name, field in schema.fields.items():
        required = "yes" if field.required else ""
        yield f"| `{name}` | {required} | {_kind(field)} | {rules.get(name, 'the same')} |"


def _kind(field: fields.Field[Any]) -> str:
    """What a field holds, in a word or two; the rules themselves are in ``/openapi.json``."""
    if isinstance(field, fields.Nested):
        inner = field.schema.fields
        return (
            "{"
            + ", ".join(f"`{name}`{'' if f.required else '?'}" for name, f in inner.items())
            + "}"
        )
    for kind, word in _KINDS:
        if isinstance(field, kind):
            return word
    raise TypeError(f"no word for {field!r}")


_KINDS: Final[tuple[tuple[type[fields.Field[Any]], str], ...]] = (
    (fields.Boolean, "true or false"),
    (fields.Integer, "whole number"),
    (fields.Float, "number"),
    (fields.Dict, "any object"),
    (fields.String, "text"),
)


_MAPPING: Final = """\
# HTTP to NATS, field by field

{generated}

What becomes of each field of a request, and of a result. The rules of the values are those of `/openapi.json`; a field
that is not here is refused by name. Fields that are absent are left out on the wire, never `null`. Subjects, headers,
streams: [NATS_SUBJECTS.md](../NATS_SUBJECTS.md). The promises: [API_CONTRACTS.md](../API_CONTRACTS.md).

## Headers of HTTP → headers of NATS

| HTTP | NATS |
|---|---|
| `Authorization`, `X-API-Key` | nothing |
| `X-Tenant-ID` | nothing: `tenant_id` is the caller's, which this may repeat |
| `X-Request-ID` | the field `request_id` |
| `X-Trace-ID` | `trace_id` |
| `traceparent` | `traceparent`, with the gateway's own span as the parent |
| `X-CP-Phase` | `cp_phase`; without it `GATEWAY_DEFAULT_CP_PHASE`; nothing where the phase is unknown |
| `Idempotency-Key` | the field of the operation's id |
| `X-Request-Timeout-Ms` | nothing: it is the deadline |

{mappings}
## `caf.exec.result.v1` → `beamline.usage.v1.metered`, and `GET /api/v1/results/…`

Clients get the result as it came. On the wire of metering it becomes:

{result}
"""
