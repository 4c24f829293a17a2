"""Every metric that the gateway exposes, declared once. What the labels may hold is in `labels`.

Prometheus client in multiprocess mode: each worker writes its own files, a scrape of any worker sums them
(`exposition`). The folder is chosen before the workers start (`gateway.gunicorn_conf`), because the client looks for
it when it is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.telemetry.metrics import labels
from gateway.telemetry.metrics.families import Family, Label, Section
from gateway.telemetry.metrics.labels import OTHER, TenantLabel, method_label

__all__ = ["OTHER", "TenantLabel", "method_label"]

LATENCY_BUCKETS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_AGE_BUCKETS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0)

# -- requests ---------------------------------------------------------------------------------------

_http = Section("Requests")

CP_REQUESTS: Final = _http.counter(
    "beamline_gateway_cp_requests_total",
    "HTTP requests by checkpoint phase.",
    "The share of `5xx` rises; a phase that should have traffic has none.",
    labels.PHASE, labels.ROUTE, labels.METHOD, labels.STATUS,
)  # fmt: skip
CP_LATENCY: Final = _http.histogram(
    "beamline_gateway_cp_latency_seconds",
    "Time from the arrival of a request to its answer, by checkpoint phase.",
    "A quantile comes near `ROUTER_REQUEST_TIMEOUT_MS`. Long polls (`/api/v1/results…`) wait on purpose.",
    labels.PHASE, labels.ROUTE, labels.METHOD,
    buckets=LATENCY_BUCKETS,
)  # fmt: skip
ERRORS: Final = _http.counter(
    "beamline_gateway_errors_total",
    "Answers that are errors, by whose error it was and its code.",
    "`internal_gateway` and `router_runtime` rise. `overloaded`: more workers or threads are needed.",
    labels.ERROR_TYPE, labels.ERROR_CODE,
)  # fmt: skip
IN_FLIGHT: Final = _http.gauge(
    "beamline_gateway_in_flight_requests",
    "Requests at work now, probes not counted.",
    "It stays near `GATEWAY_MAX_IN_FLIGHT` times workers: the next requests are answered 503 `overloaded`.",
    merging="livesum",
)
WAITING: Final = _http.gauge(
    "beamline_gateway_waiting_requests",
    "Long polls and open event streams now; they are in flight as well.",
    "It stays near `GATEWAY_MAX_WAITING` times workers: the next ones are answered 503 `overloaded`.",
    merging="livesum",
)
_LIMIT: Final = Label.of("limit", "global", "tenant")
RATE_LIMITED: Final = _http.counter(
    "beamline_gateway_rate_limited_requests_total",
    "Requests refused with 429, by the limit that was reached.",
    "`tenant` rises: somebody's client runs wild, or its limit is too low. `global`: everybody is affected.",
    _LIMIT,
)
RATE_LIMIT_UNCOUNTED: Final = _http.counter(
    "beamline_gateway_rate_limit_uncounted_requests_total",
    "Requests that passed a limit uncounted, because `RATE_LIMIT_FILE` could not be used.",
    "It rises at all: the limit does not hold; the log says why.",
    _LIMIT,
)

# -- exactly once -----------------------------------------------------------------------------------

_once = Section("Exactly once")

IDEMPOTENCY_HIT: Final = _once.counter(
    "idempotency_hit_total",
    "Requests whose id was known: answered with the first one's outcome.",
    "It is most of the traffic: a client repeats what was answered long ago.",
    labels.TENANT, labels.KEY_TYPE,
)  # fmt: skip
IDEMPOTENCY_MISS: Final = _once.counter(
    "idempotency_miss_total",
    "Requests that were the first of their id: executed.",
    "It follows the traffic; it alone says nothing.",
    labels.TENANT, labels.KEY_TYPE,
)  # fmt: skip
CLAIMS: Final = _once.counter(
    "beamline_gateway_claims_total",
    "What became of requests with an id: first of it, repeated, in conflict with another request's, or too early.",
    "`conflict`: clients reuse ids for different requests. `taken_over`: workers die or stall within decides.",
    labels.OPERATION,
    Label(
        "outcome",
        "`in_progress`: an equal one was at work until the deadline. `taken_over`: counted beside `first`, where an"
        " owner did not finish within its lease.",
        ("first", "repeated", "conflict", "in_progress", "taken_over"),
    ),
)
UNKNOWN_OUTCOMES: Final = _once.counter(
    "beamline_gateway_unknown_outcomes_total",
    "Effects that were sent and not acknowledged in time: they may have happened, the client must repeat the request.",
    "It rises at all: NATS is slow, frozen or electing a leader.",
    Label.of("operation", "assignments", "acks", "usage"),
)
USAGE_EMITTED: Final = _once.counter(
    "beamline_gateway_usage_emitted_total",
    "Usage events by where they came from, and whether they counted or their usage was metered before.",
    "`emitted` falls while results go on. `duplicate` is normal where clients report what workers report, too.",
    labels.TENANT,
    Label.of("source", "http", "result"),
    Label.of("result", "emitted", "duplicate"),
)

# -- sticky sessions --------------------------------------------------------------------------------

_sticky = Section("Sticky sessions")

STICKY_HITS: Final = _sticky.counter(
    "sticky_hits_total",
    "Decides of a session that went out with its provider.",
    "Its share falls: sessions are shorter than expected, or `STICKY_TTL_MS` is too short.",
    labels.TENANT, labels.SUBJECT,
)  # fmt: skip
STICKY_MISS: Final = _sticky.counter(
    "sticky_miss_total",
    "Decides of a session that went out without a preferred provider.",
    "See `sticky_hits_total`.",
    labels.TENANT, labels.SUBJECT,
)  # fmt: skip
STICKY_MOVES: Final = _sticky.counter(
    "beamline_gateway_sticky_moves_total",
    "Sessions that the Router moved to another provider than their own; hits, too.",
    "It rises: a provider is unhealthy, or gone.",
    labels.TENANT, labels.SUBJECT,
)  # fmt: skip
STICKY_UNAVAILABLE: Final = _sticky.counter(
    "beamline_gateway_sticky_unavailable_total",
    "Decides of a session that could not be looked up: the bucket was out of reach.",
    "It rises at all: these decides went on without their session.",
    labels.TENANT, labels.SUBJECT,
)  # fmt: skip

# -- NATS -------------------------------------------------------------------------------------------

_nats = Section("NATS")

NATS_REQUESTS: Final = _nats.counter(
    "beamline_gateway_nats_requests_total",
    "Request-reply calls by outcome.",
    "`unknown`: the Router is silent. `not_sent`: no Router listens, or NATS is away.",
    labels.SUBJECT, labels.WIRE_OUTCOME,
)  # fmt: skip
NATS_PUBLISHES: Final = _nats.counter(
    "beamline_gateway_nats_publishes_total",
    "JetStream publishes by outcome.",
    "`unknown`: no acknowledgement in time. `not_sent`: NATS is away, or a stream is full.",
    labels.SUBJECT, labels.WIRE_OUTCOME,
)  # fmt: skip
NATS_LATENCY: Final = _nats.histogram(
    "beamline_gateway_nats_latency_seconds",
    "Time from a message's sending to its reply or acknowledgement; those without one are not in it.",
    "It makes most of `beamline_gateway_cp_latency_seconds`: the Router or JetStream is slow, not the gateway.",
    Label.of("kind", "request", "publish"), labels.SUBJECT,
    buckets=LATENCY_BUCKETS,
)  # fmt: skip
NATS_RECONNECTS: Final = _nats.counter(
    "beamline_gateway_nats_reconnects_total",
    "Connections to NATS that were made again after one was lost.",
    "It rises steadily: the network or a server drops connections.",
)
CONNECTED_WORKERS: Final = _nats.gauge(
    "beamline_gateway_bridge_connected_workers",
    "Workers whose bridge is connected to NATS.",
    "It is less than `beamline_gateway_workers`: those others answer 503.",
    merging="livesum",
)
READY_WORKERS: Final = _nats.gauge(
    "beamline_gateway_ready_workers",
    "Workers that can serve: connected, streams as required, not stopping. What `/readyz` says.",
    "It is less than `beamline_gateway_workers` for longer than a start or an upgrade takes.",
    merging="livesum",
)
FINDINGS: Final = _nats.gauge(
    "beamline_gateway_nats_findings",
    "What the audit of streams, buckets and permissions complains about now; `/readyz` has the sentences.",
    "`true`: the gateway is not ready. `false`: something is unsafe or set differently by another instance.",
    Label.of("blocking", "true", "false"),
    merging="livemax",
)
STORES_REPLACED: Final = _nats.counter(
    "beamline_gateway_nats_stores_replaced_total",
    "How often a worker found streams or buckets to be other ones than before: deleted, restored, a store wiped.",
    "It counts and nobody restored a backup: what they held is gone, ids that were known among it.",
)
STREAM_BYTES: Final = _nats.gauge(
    "beamline_gateway_nats_stream_bytes",
    "Size of a stream, as of the last audit (every 30 s while connected).",
    "It comes near `beamline_gateway_nats_stream_max_bytes`: a full stream refuses messages, and clients get 503.",
    labels.STREAM,
    merging="livemostrecent",
)
STREAM_MAX_BYTES: Final = _nats.gauge(
    "beamline_gateway_nats_stream_max_bytes",
    "Size at which a stream is full; a stream without a limit has none.",
    "See `beamline_gateway_nats_stream_bytes`.",
    labels.STREAM,
    merging="livemostrecent",
)
STREAM_MESSAGES: Final = _nats.gauge(
    "beamline_gateway_nats_stream_messages",
    "Messages in a stream, as of the last audit.",
    "`BEAMLINE_DLQ` grows: see `beamline_gateway_dead_letters_total`.",
    labels.STREAM,
    merging="livemostrecent",
)
LOOP_LAG: Final = _nats.histogram(
    "beamline_gateway_bridge_loop_lag_seconds",
    "How late a worker's NATS loop was at its heartbeat, twice a second.",
    "More than now and then over 0.1 s: the worker has too little CPU, and every request waits for the loop.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
OPERATIONS: Final = _nats.gauge(
    "beamline_gateway_bridge_in_flight_operations",
    "Operations at work on the NATS loops now.",
    "It stays high while `beamline_gateway_in_flight_requests` is low: given-up calls pile up.",
    merging="livesum",
)

# -- results ----------------------------------------------------------------------------------------

_results = Section("Results of workers")

CONSUMPTION: Final = _results.counter(
    "beamline_gateway_nats_consumption_total",
    "Attempts to take a delivery in: done, rejected for what it is, or failed for a reason of our own.",
    "`rejected`: somebody sends what is no result. `failed`: NATS is in trouble; they are tried again.",
    labels.SUBJECT,
    labels.TENANT,
    Label.of("result", "ok", "rejected", "failed"),
    Label.of("redelivered", "true", "false"),
)
CONSUMPTION_LATENCY: Final = _results.histogram(
    "beamline_gateway_nats_consumption_latency_seconds",
    "Time to handle one delivery.",
    "It rises: the streams that results end in are slow.",
    labels.SUBJECT, labels.TENANT,
    buckets=LATENCY_BUCKETS,
)  # fmt: skip
DEAD_LETTERS: Final = _results.counter(
    "beamline_gateway_dead_letters_total",
    "Messages given up, by reason. `beamline-gateway dlq` lists them and sends them again.",
    "It rises at all.",
    labels.SUBJECT,
    Label.of(
        "reason",
        "subject_not_allowed", "msg_id_missing", "unreadable", "version_unsupported", "tenant_missing",
        "tenant_not_allowed", "schema_invalid", "late", "too_large", "max_deliver",
    ),
)  # fmt: skip
CONSUMER_PENDING: Final = _results.gauge(
    "beamline_gateway_nats_consumer_pending_messages",
    "Messages that no worker has been given yet: the lag of the consumer.",
    "It grows: results come faster than they are taken in.",
    labels.DURABLE,
    merging="livemostrecent",
)
CONSUMER_UNACKNOWLEDGED: Final = _results.gauge(
    "beamline_gateway_nats_consumer_unacknowledged_messages",
    "Messages delivered and not acknowledged, over all instances; those that wait for another delivery, too.",
    "It stays high: messages are refused again and again, or handlers hang.",
    labels.DURABLE,
    merging="livemostrecent",
)
CONSUMER_REDELIVERED: Final = _results.gauge(
    "beamline_gateway_nats_consumer_redelivered_messages",
    "Messages delivered more than once and not acknowledged yet.",
    'It stays over zero: see `beamline_gateway_nats_consumption_total` with `redelivered="true"`.',
    labels.DURABLE,
    merging="livemostrecent",
)

# -- access -----------------------------------------------------------------------------------------

_access = Section("Access")

RBAC_DECISIONS: Final = _access.counter(
    "beamline_gateway_rbac_decisions_total",
    'Answers to "may this caller do this?", from the cache (hit), from the source (miss), or without asking (none).',
    "`error`: roles cannot be looked up, callers get 503. `deny` rises: a role changed, or somebody oversteps.",
    Label.of("decision", "allow", "deny", "error"),
    Label.of("cache", "hit", "miss", "none"),
)
RBAC_CACHE_AGE: Final = _access.histogram(
    "beamline_gateway_rbac_cache_age_seconds",
    "How old the answer of the source was that a decision rested on.",
    "Never over `RBAC_CACHE_TTL_MS`.",
    buckets=_AGE_BUCKETS,
)

# -- the instance -----------------------------------------------------------------------------------

_instance = Section("The instance")

BUILD_INFO: Final = _instance.gauge(
    "beamline_gateway_build_info",
    "1; the labels say what runs.",
    "Instances that should be equal are not.",
    Label("version", "The gateway's version."),
    Label("python", "The interpreter's version."),
    merging="livemax",
)
WORKERS: Final = _instance.gauge(
    "beamline_gateway_workers",
    "Worker processes that live.",
    "It is less than `beamline_gateway_configured_workers` for longer than a start takes.",
    merging="livesum",
)
CONFIGURED_WORKERS: Final = _instance.gauge(
    "beamline_gateway_configured_workers",
    "Worker processes that there should be (`WEB_CONCURRENCY`).",
    "See `beamline_gateway_workers`.",
    merging="livemax",
)
WORKER_STARTS: Final = _instance.counter(
    "beamline_gateway_worker_starts_total",
    "Worker processes started.",
    "It rises faster than `GATEWAY_MAX_REQUESTS` explains: workers die.",
)
CPU_SECONDS: Final = _instance.counter(
    "beamline_gateway_cpu_seconds_total",
    "CPU time of all workers, those included that are gone.",
    "Its rate stays near the number of workers: each has one core at most.",
)
RESIDENT_BYTES: Final = _instance.gauge(
    "beamline_gateway_resident_memory_bytes",
    "Resident memory of all workers.",
    "It grows for days: set `GATEWAY_MAX_REQUESTS`, and report it.",
    merging="livesum",
)
LOG_LINES_LOST: Final = _instance.counter(
    "beamline_gateway_log_lines_lost_total",
    "Log lines that nobody took in time, or at all: requests do not wait for the log.",
    "It rises at all: what reads the gateway's stderr is too slow, stopped or gone.",
)

SECTIONS: Final = (_http, _once, _sticky, _nats, _results, _access, _instance)


def families() -> Iterator[Family]:
    """All declared families, in the order of the document."""
    for section in SECTIONS:
        yield from section.families
