"""What a smoke check can find, each with the exit code that says so. The numbers are contract: scripts read them."""

from __future__ import annotations

from enum import Enum, unique
from typing import Final

PASSED: Final = 0
BROKEN: Final = 1
"""The command itself failed: Python's own code for an unhandled error."""
NOT_CHECKED: Final = 9
"""With ``--strict``: nothing failed, but something could not be checked."""


@unique
class Failure(Enum):
    """A finding: its exit code, what it means, and where to look first. Numbers are never used again."""

    exit_code: int
    meaning: str
    remedy: str

    GATEWAY_UNREACHABLE = (
        10,
        "Nobody answers at the URL: connection refused, no such host, or a TLS certificate that is not trusted.",
        "Is the gateway started, is `--url` its address, does `--ca-file` hold its CA?",
    )
    GATEWAY_SILENT = (
        11,
        "The connection is taken, and no answer comes within `--timeout`.",
        "A frozen process or a full listen queue; look at the host.",
    )
    NOT_A_GATEWAY = (
        12,
        "Something answers, and not as a Beamline Gateway does.",
        "Another service or a proxy's own page is at the URL.",
    )
    NOT_LIVE = (
        13,
        "`/livez` says that the process has failed.",
        "Its loop thread is gone: restart the instance, keep its log.",
    )
    NOT_READY = (
        14,
        "`/readyz` says that requests cannot succeed now.",
        "The line says what is missing; `beamline-gateway streams` says more.",
    )
    UNAUTHORIZED = (
        15,
        "The credentials are not accepted (401).",
        "`--key` / `BEAMLINE_KEY`, or `--header` with `AUTH_MODE=headers`; is the key revoked?",
    )
    FORBIDDEN = (
        16,
        "The credentials are known and may not do what the checks do (403).",
        "A role with `usage:write` (and `routes:decide`, `assignments:write`, `results:read` for `--round-trip`).",
    )
    SAME_TENANT = (
        17,
        "The second credentials are of the same tenant as the first.",
        "`--tenant-key` or `--tenant-header` must be of another tenant.",
    )
    REQUEST_FAILED = (
        18,
        "The gateway refuses a request for a reason of its own: overload, a limit, an error inside.",
        "The line names status, code and message; the access log has the rest.",
    )
    METRICS_UNANSWERED = (
        20,
        "`/metrics` does not answer 200.",
        "With `METRICS_BIND` set give its address as `--metrics-url`.",
    )
    METRICS_UNREADABLE = (
        21,
        "What `/metrics` answers is no Prometheus text format.",
        "Something rewrites the answer, or two samples are the same.",
    )
    OPENMETRICS_UNREADABLE = (
        22,
        "Asked for OpenMetrics, `/metrics` answers something else or something malformed.",
        "As before; Prometheus asks for this format first.",
    )
    METRICS_FAMILY_MISSING = (
        23,
        "A metric that the requests of the checks must have written is not there.",
        "The name changed, or the metric files cannot be written (`PROMETHEUS_MULTIPROC_DIR`).",
    )
    METRICS_LABELS_WRONG = (
        24,
        "A metric has other labels than the contract names.",
        "Dashboards and alerts that use them are broken, too.",
    )
    METRICS_TYPE_WRONG = (
        25,
        "A metric is declared as another type than the contract's.",
        "As before.",
    )
    METRICS_STILL = (
        26,
        "A metric does not move although requests were served.",
        "Is the URL that of one instance, and `--metrics-url` of the same one?",
    )
    NOT_ACCEPTED = (
        30,
        "A usage event is not accepted with 202 and a receipt.",
        "The line holds the answer; a full stream and a clock that is off are told there.",
    )
    NOT_REPLAYED = (
        31,
        "The same event sent again is not marked `Idempotency-Replayed: true`.",
        "A proxy that drops the header, or idempotency is broken.",
    )
    REPLAY_DIFFERS = (
        32,
        "The repeat is answered otherwise than the first request.",
        "Clients see two outcomes of one request; do not go live.",
    )
    STORED_TWICE = (
        33,
        "One event is on the stream more than once.",
        "Duplicate windows: `beamline-gateway streams`.",
    )
    NOT_STORED = (
        34,
        "An event was answered 202 and is not on its stream.",
        "Is `NATS_URL` that of the gateway? Otherwise acknowledged writes are lost.",
    )
    TENANTS_MIXED = (
        35,
        "The second tenant's event was taken for the first tenant's.",
        "Do not go live.",
    )
    HITS_STILL = (
        36,
        "`idempotency_hit_total` did not count the repeat.",
        "As for 26.",
    )
    MISSES_STILL = (
        37,
        "`idempotency_miss_total` did not count the first requests.",
        "As for 26.",
    )
    NATS_UNAVAILABLE = (
        38,
        "`NATS_URL` is set, and its stream cannot be read from here.",
        "Credentials and permissions of this environment; without `NATS_URL` the answers alone are judged.",
    )
    OTLP_ADDRESS = (
        40,
        "The checks' own OTLP receiver cannot listen on `--otlp-listen`.",
        "Another collector may have the port.",
    )
    TRACES_NONE = (
        41,
        "The gateway sent nothing to the receiver.",
        "Is `OTEL_EXPORTER_OTLP_ENDPOINT` of the gateway that address, and reachable from there?",
    )
    TRACES_WRONG_PROTOCOL = (
        42,
        "What came to the receiver is not OTLP as expected: another protocol, path or content type.",
        "`OTEL_EXPORTER_OTLP_PROTOCOL` of the gateway, and `--otlp-protocol` here.",
    )
    TRACE_MISSING = (
        43,
        "Traces come, and not the one of the checks' own request.",
        "A sampler that ignores its parent, or another instance answered.",
    )
    SPAN_MISSING = (
        44,
        "The trace lacks a span of the contract.",
        "The line names it.",
    )
    SPAN_ATTRIBUTES = (
        45,
        "A span lacks an attribute of the contract, or has another value than was sent.",
        "The line names both.",
    )
    SPAN_PARENT = (
        46,
        "A span is in the trace, and not below the span that led to it.",
        "The context was lost between threads or on the way through NATS.",
    )
    SPAN_LEAKS = (
        47,
        "A span holds the credential that the request was made with.",
        "Revoke the key; look who else reads the traces.",
    )
    COLLECTOR_MISSING = (
        50,
        "This environment names no collector (`OTEL_EXPORTER_OTLP_ENDPOINT`).",
        "Run it with the gateway's environment; or give `--otlp-listen`, or `--without-traces`.",
    )
    COLLECTOR_REFUSED = (
        51,
        "Nobody listens where the collector should be.",
        "Host, port (4318 for HTTP, 4317 for gRPC) and network.",
    )
    COLLECTOR_WRONG_PROTOCOL = (
        52,
        "The collector is there and speaks another protocol.",
        "`OTEL_EXPORTER_OTLP_PROTOCOL`: `http/protobuf` (4318) or `grpc` (4317); http or https.",
    )
    COLLECTOR_SILENT = (
        53,
        "The collector takes the connection and never answers.",
        "The collector, or a firewall before it.",
    )
    COLLECTOR_ERROR = (
        54,
        "The collector refuses the trace.",
        "The line holds its answer: path, credentials (`OTEL_EXPORTER_OTLP_HEADERS`), pipeline.",
    )
    COLLECTOR_SETTINGS = (
        55,
        "The `OTEL_*` variables of this environment are wrong: a gateway would not start with them.",
        "The line says what was expected.",
    )
    DECIDE_FAILED = (
        60,
        "A routing decision is not answered 200.",
        "Is a Router there? `--round-trip` needs one.",
    )
    SESSION_LOST = (
        61,
        "Two decides of one session are not a miss and then a hit with the same provider.",
        "`STICKY_SESSION_KEY` here must be the gateway's; is its bucket out of reach?",
    )
    ASSIGNMENT_FAILED = (
        62,
        "An assignment is not accepted with 202.",
        "The line holds the answer.",
    )
    RESULT_MISSING = (
        63,
        "The assignment's result does not come.",
        "Is a worker there? `--round-trip` needs one.",
    )
    DEVSTACK = (
        70,
        "With `--devstack`: the stack does not start.",
        "Its output is printed.",
    )

    def __init__(self, exit_code: int, meaning: str, remedy: str) -> None:
        self.exit_code = exit_code
        self.meaning = meaning
        self.remedy = remedy

    @property
    def slug(self) -> str:
        """Its name for machines."""
        return self.name.lower()


class Failed(Exception):
    """A check found something; the text is one line for people and holds no credential."""

    def __init__(self, failure: Failure, sentence: str) -> None:
        super().__init__(sentence)
        self.failure = failure


class NotChecked(Exception):
    """A check cannot be made with what was given; the text says what it would need."""
