"""``docs/TRACES.md``: the spans, and every attribute that may leave the process, from the list that lets it."""

from __future__ import annotations

from typing import Final

from gateway.telemetry.tracing.discretion import ATTRIBUTES


def render(generated: str) -> str:
    """The text; ``generated`` says where it comes from."""
    rows = "\n".join(f"| `{name}` | {meaning} |" for name, meaning in ATTRIBUTES.items())
    spans = "\n".join(f"| {' | '.join(cells)} |" for cells in _SPANS)
    return _TEXT.format(generated=generated, spans=spans, attributes=rows)


_SPANS: Final = (
    (
        "`<method> <route>`",
        "the HTTP request, by OpenTelemetry's instrumentation of Flask in its stable conventions; probes have none",
        "`tenant_id`, `cp_phase`, `request_id`, `error_code`",
    ),
    (
        "`nats.request`",
        "a request to the Router until its reply",
        "`subject`, `tenant_id`, `cp_phase`; failed: `error.type`",
    ),
    (
        "`nats.publish`",
        "a message until its stream has acknowledged it",
        "the same, `messaging.message.id`",
    ),
    (
        "`nats.consume`",
        "one delivery of a message, until it is acknowledged, given back or given up",
        "the same, `durable`, `redelivery_count`, `stream`, `stream_seq`",
    ),
)

_TEXT: Final = """\
# Traces

{generated}

Set `OTEL_EXPORTER_OTLP_ENDPOINT` and the gateway sends spans to that collector, over HTTP/protobuf or, with
`OTEL_EXPORTER_OTLP_PROTOCOL=grpc`, over gRPC. All of OpenTelemetry's standard variables are in
[CONFIGURATION.md](CONFIGURATION.md#traces-opentelemetrys-own-names); a wrong one stops the start. Without an endpoint
nothing is recorded. Trace ids are made all the same, and a caller's `traceparent` is passed on as it came.

## One request

```
POST /api/v1/assignments            server     gateway
└── nats.publish                    producer   gateway    caf.exec.assign.v1
    └── nats.consume                consumer   worker     durable, redelivery_count
        └── nats.publish            producer   worker     caf.exec.result.v1
            └── nats.consume        consumer   gateway    durable, redelivery_count
                └── nats.publish    producer   gateway    beamline.usage.v1.metered

POST /api/v1/routes/decide          server     gateway
└── nats.request                    client     gateway    beamline.router.v1.decide
    └── …                                      Router
```

`traceparent` (W3C) is read from requests and results, and written into every message; the Router and the workers
continue it. `beamline-gateway dev` shows it: its Router and worker send spans of their own to the same endpoint.

| span | is | tells |
|---|---|---|
{spans}

- **A failed message** has the status `error`; description and `error.type` are one word: `not_sent`, `unknown`,
  `refused`, `closed`. The server span follows the HTTP conventions: 5xx is an error, 4xx is not; `error_code` is there
  either way.
- **A delivery** that does not simply end well says so in events: `refused` (it will be delivered again), `given_up` (it
  becomes a dead letter, whose `nats.publish` is below it), `waited` (NATS was in trouble), `given_back` (the worker is
  stopping), `failed`, `unacknowledged`. Each delivery of a message is a span below the one that sent it.
- **A replay** (the id was answered before) has `idempotency.replayed` and a link to the span of the first request.
- **Trace ids**: `X-Trace-ID` without a `traceparent` becomes the id of the trace
  ([ADR 0005](adr/0005-x-trace-id-names-the-trace.md)). A result without a `traceparent` joins the trace that its header
  `trace_id` names; without that it begins one, which its usage event continues.

## How to see the traffic of a phase

Clients name the phase in `X-CP-Phase`; it is the attribute `cp_phase` of every span of the trace, a header of every
message, and a label of `beamline_gateway_cp_requests_total` and `beamline_gateway_cp_latency_seconds`
([METRICS.md](METRICS.md)). In a backend that speaks TraceQL:

```
{{ span.cp_phase = "cp2" && resource.service.name = "beamline-gateway" && status = error }}
{{ name = "nats.consume" && span.redelivery_count > 0 }}
{{ span.tenant_id = "acme" && span.idempotency.replayed = true }}
```

## What a span may tell

Ids and names, and nothing else: no payload, no credential, nothing about a person. That is a list of what is allowed,
applied to every span before it leaves the process, whoever recorded it:

| attribute | meaning |
|---|---|
{attributes}

What OpenTelemetry would record and is left out, also where `OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_…` asks for it:
the query string, the path as it came, headers, the user agent, the client's address and port, the host that was called,
the messages and stack traces of exceptions, the caller's `tracestate` (it is passed on). In ids that callers make up
(`request_id`, `messaging.message.id`) e-mail addresses and what looks like a key are masked. `baggage` is read and
goes nowhere.

## When the collector is in trouble

Spans are exported by a thread of their own, in batches, each given up after `OTEL_EXPORTER_OTLP_TIMEOUT` (1 s). With
the collector away, refusing or hanging, spans are lost (the oldest of `OTEL_BSP_MAX_QUEUE_SIZE` first) and requests are
not affected. The log says so at most once a minute for all workers of an instance. A stopping worker sends what it has
within 1.5 s.

## What it costs

Without an endpoint about 15 µs a request. With one, in CPU of a worker: about 160 µs for the server span, 20 µs for
each message, and 25 µs a span for its export. `OTEL_TRACES_SAMPLER=parentbased_traceidratio` with
`OTEL_TRACES_SAMPLER_ARG=0.05` records one in twenty of the traces that no caller has decided on; the other nineteen
cost about 50 µs each.
"""
