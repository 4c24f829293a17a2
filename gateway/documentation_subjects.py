"""docs/NATS_SUBJECTS.md: what goes over which subject, and how long it is kept.

Streams, buckets and knobs come from the declarations; what these cannot say (why, what follows) is text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.bridge_config import bridge_config
from gateway.settings import Settings, variables

_KNOBS: Final = (
    "NATS_MAX_DELIVER",
    "NATS_ACK_WAIT_MS",
    "NATS_BACKOFF_MS",
    "NATS_SUBJECT_ALLOWLIST",
    "GATEWAY_TENANT_ALLOWLIST",
    "ENABLE_USAGE_PUBLISH",
    "ROUTER_DECIDE_SUBJECT",
    "CAF_ASSIGNMENT_SUBJECT",
    "CAF_RESULT_SUBJECT",
    "USAGE_SUBJECT",
    "ROUTER_REQUEST_TIMEOUT_MS",
    "IDEMPOTENCY_TTL_MS",
    "USAGE_DEDUPE_WINDOW_MS",
    "USAGE_ACCEPT_LATE",
    "NATS_REPLICAS",
    "EXEC_MAX_AGE_MS",
    "EXEC_MAX_BYTES",
    "USAGE_MAX_AGE_MS",
    "USAGE_MAX_BYTES",
    "DLQ_MAX_AGE_MS",
    "DLQ_MAX_BYTES",
)
"""The variables that decide how messages are kept and delivered."""


def subjects(generated: str) -> str:
    """docs/NATS_SUBJECTS.md; ``generated`` is the notice of its origin."""
    return _SUBJECTS.format(
        generated=generated,
        streams="\n".join(_streams()),
        buckets="\n".join(_buckets()),
        knobs="\n".join(_knobs()),
    )


def _defaults() -> Settings:
    """With keys and roles in NATS, so that all buckets there are can be shown."""
    return Settings.from_environ({"APIKEYS_SOURCE": "bucket", "ROLES_SOURCE": "bucket"})


def _streams() -> Iterator[str]:
    yield "| stream | subjects | an id is known for | kept for | at most |"
    yield "|---|---|---|---|---|"
    for stream in bridge_config(_defaults()).streams:
        named = "<br>".join(f"`{subject}`" for subject in stream.subjects)
        yield (
            f"| `{stream.name}` | {named} | {_time(stream.duplicate_window_ms)} | {_time(stream.max_age_ms)}"
            f" | {_size(stream.max_bytes)} |"
        )


def _buckets() -> Iterator[str]:
    yield "| bucket | an entry lives |"
    yield "|---|---|"
    for bucket in bridge_config(_defaults()).buckets:
        yield f"| `{bucket.name}` | {_time(bucket.ttl_ms) if bucket.ttl_ms else 'for ever'} |"


def _knobs() -> Iterator[str]:
    declared = {variable.name: variable for variable in variables()}
    yield "| variable | default | meaning |"
    yield "|---|---|---|"
    for name in _KNOBS:
        variable = declared[name]
        default = f"`{variable.default}`" if variable.default else "not set"
        yield f"| `{name}` | {default} | {variable.doc.replace('|', chr(92) + '|')} |"


def _time(milliseconds: float) -> str:
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if milliseconds >= size and milliseconds % size == 0:
            number = int(milliseconds // size)
            return f"{number} {unit if number > 1 else unit[:-1]}"
    return f"{milliseconds / 1000:g} s"


def _size(size: int) -> str:
    return f"{size / (1 << 30):g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):g} MiB"


_SUBJECTS: Final = """\
# NATS subjects

{generated}

What the gateway sends and takes on NATS, how long it is kept, and what decides that. Field by field:
[PROTO_NATS_MAPPING.md](ARCHITECTURE/PROTO_NATS_MAPPING.md). What the gateway must be allowed:
[NATS_ACCOUNT.md](NATS_ACCOUNT.md). What clients are promised: [API_CONTRACTS.md](API_CONTRACTS.md). What Beamline is:
[VISION.md](VISION.md).

## Subjects

| subject | direction | how | payload |
|---|---|---|---|
| `beamline.router.v1.decide` | gateway → Router | request-reply | DecideRequest → decision or error |
| `caf.exec.assign.v1` | gateway, Router → workers | JetStream | ExecAssignment |
| `caf.exec.assign.v1.ack` | workers, HTTP clients → Router | JetStream | ExecAssignmentAck |
| `caf.exec.result.v1` | workers → gateway, Router | JetStream, durable pull consumer | ExecResult |
| `beamline.usage.v1.metered` | gateway → metering | JetStream | UsageEvent |
| `<subject>.dlq` | gateway | JetStream | DeadLetter |

## Headers of every message

| header | is |
|---|---|
| `version` | `1`; a message with another is refused |
| `tenant_id` | the tenant, of the caller or of the result |
| `trace_id` | 32 lower-case hex digits |
| `traceparent` | W3C trace context: the span that sent the message |
| `cp_phase` | the checkpoint phase, where it is known |
| `Nats-Msg-Id` | on JetStream: what the stream knows a repeat by |
| `usage_id`, or `usage_source: result` | on usage events: whose it is |

Headers win over fields of the same name. `Authorization`, and anything made from it, never travels.

## Streams and buckets

With the default settings. Retention by limits, `discard=new`, file storage, `NATS_REPLICAS` replicas. A stream that
another owner made for a subject is used as it is, and `beamline-gateway streams` says what is unsafe about it.

{streams}

{buckets}

An entry of `BEAMLINE_IDEMPOTENCY` is a claim. Whatever a decision rests on is read through the stream's leader.

## Deliveries: acknowledged, refused, given up

Results are taken by one durable pull consumer, shared by all workers of all instances. A result is acknowledged after
its effect: usage metered, result kept for those who wait. A refused one is given back (NAK) with the next pause of
`NATS_BACKOFF_MS` and, at its `NATS_MAX_DELIVER`th delivery, becomes a dead letter and ends. One that meets
trouble of the gateway's own (NATS away, a leader being elected) is given back without limit and never becomes a dead
letter.

Refused are: a subject that is not in `NATS_SUBJECT_ALLOWLIST`, a tenant that is not in `GATEWAY_TENANT_ALLOWLIST`,
headers without `Nats-Msg-Id`, another `version`, a payload that cannot be read.

**`NATS_SUBJECT_ALLOWLIST`** is for a `CAF_RESULT_SUBJECT` with wildcards: the consumer's filter takes in what the
pattern covers, and the allowlist says which of these subjects count. Each message's own subject must be in it. Its
default is the subject that is consumed, so that without wildcards there is nothing to set:

```sh
CAF_RESULT_SUBJECT='caf.exec.result.*' NATS_SUBJECT_ALLOWLIST=caf.exec.result.v1,caf.exec.result.v2 \\
  beamline-gateway settings
```

A message on `caf.exec.result.test` is then given back, counted as `rejected` in
`beamline_gateway_nats_consumption_total`, and in the end found by `beamline-gateway dlq list`.

## Usage: `beamline.usage.v1.metered`

```json
{{"version": "1", "tenant_id": "acme", "provider_id": "openai:gpt-4o", "event_type": "chat", "latency_ms": 850,
 "cost": 0.012, "status": "success", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "timestamp": 1767225600000,
 "assignment_id": "a-1", "request_id": "r-1"}}
```

`assignment_id` or `request_id` may be absent, never both. At most one event within `USAGE_DEDUPE_WINDOW_MS` for
`tenant_id + assignment_id`, or `tenant_id + request_id` where there is no assignment: that pair is the `Nats-Msg-Id`.

| what happens | events |
|---|---|
| A client with `usage:write` (the roles `service` and `admin`) posts an event | one, header `usage_id` |
| It posts it again, to any worker | none more; the first answer again |
| Another `usage_id` names the same assignment | none more; `emitted: false`, `duplicate_of` |
| A worker's result of the assignment comes, too | the first of both; a result's has `usage_source: result` |
| The same ids under another tenant | one of its own |
| `ENABLE_USAGE_PUBLISH=false` | none for results; clients' as before |
| The event is older than the window | none: it is refused with 400, a result becomes a dead letter `late` |

## Dead letters

On the subject with `.dlq` behind it: `original_subject`, `msg_id`, `reason`, `error_code`, `timestamp`, `trace_id`,
`tenant_id`, `headers` and `payload` (base64); headers `x-dlq-reason`, `x-original-msg-id`, `trace_id`, `tenant_id`.
`beamline-gateway dlq list | show | replay` reads them; a replay goes out under a new `Nats-Msg-Id`.

## Knobs

All variables: [CONFIGURATION.md](CONFIGURATION.md).

{knobs}
"""
