"""Environment → frozen `Settings`: one declaration for the parser, the types and the documentation.

Each field names its variable, how it is parsed, its default and what it means. `Settings.from_environ` reads all
of them at once and reports **every** wrong one, so that a wrong environment is mended in one round. A value that
is secret is never shown, neither in errors nor in ``beamline-gateway settings``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marshmallow import fields

from bridge import subject_covers
from gateway.environment import (
    CommaList,
    ExistingFile,
    Network,
    Variable,
    choice,
    declared,
    env,
    flag,
    name,
    parse,
    whole,
)

NAME_PATTERN = r"[A-Za-z0-9_.:-]{1,64}"
"""A tenant's name (wire contract, "Limits")."""


class SettingsError(Exception):
    """The environment is wrong. ``problems`` holds a line a variable: what was expected, never a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_SUBJECT = name("a subject without wildcards", r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PATTERN = name(
    "a subject, * and > allowed", r"([A-Za-z0-9_-]+|\*)(\.([A-Za-z0-9_-]+|\*))*(\.>)?|>"
)
_TENANTS = CommaList(name("tenant names", NAME_PATTERN))
_DAY_MS = 24 * 3600 * 1000
_YEAR_MS = 366 * _DAY_MS
_CLEANUP_MS = 5_000
"""What a stopping worker needs beside the longest request: closing NATS, flushing spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set, as the process uses it. Times are in the unit that the name says."""

    # -- the HTTP door
    bind: str = env(
        "GATEWAY_BIND",
        name("host:port", r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]*):\d{1,5}"),
        "127.0.0.1:8080",
        "Address that gunicorn listens on.",
    )
    workers: int = env(
        "WEB_CONCURRENCY", whole(1, 256), "2", "Worker processes; as many as cores is best."
    )
    threads: int = env(
        "GATEWAY_THREADS", whole(4, 512), "32", "Threads in each worker, one a request."
    )
    max_in_flight: int = env(
        "GATEWAY_MAX_IN_FLIGHT",
        whole(0, 510),
        "0",
        "Requests at work in each worker before the next is answered 503 `overloaded`; 0: two fewer than"
        " threads, so that probes always find one.",
    )
    max_requests: int = env(
        "GATEWAY_MAX_REQUESTS",
        whole(0, 1_000_000_000),
        "0",
        "Requests after which a worker is replaced; 0: never.",
    )
    graceful_timeout_ms: int = env(
        "GATEWAY_GRACEFUL_TIMEOUT_MS",
        whole(1_000, 600_000, "of milliseconds"),
        "15000",
        "How long a stopping worker may finish what it has begun.",
    )
    drain_ms: int = env(
        "GATEWAY_DRAIN_MS",
        whole(0, 60_000, "of milliseconds"),
        "500",
        "How long a stopping gateway goes on serving with `/readyz` failing, so that a load balancer sees it"
        " first.",
    )
    keepalive_ms: int = env(
        "GATEWAY_KEEPALIVE_MS",
        whole(0, 3_600_000, "of milliseconds"),
        "75000",
        "How long an idle connection is kept open; longer than the load balancer's own bound.",
    )
    body_max_bytes: int = env(
        "GATEWAY_BODY_MAX_BYTES",
        whole(1_024, 64 * 1024 * 1024, "of bytes"),
        "1048576",
        "Largest request body; a larger one is answered 413.",
    )
    default_cp_phase: str = env(
        "GATEWAY_DEFAULT_CP_PHASE",
        choice(*(f"cp{n}" for n in range(9)), "unknown"),
        "cp2",
        "Phase of requests without `X-CP-Phase`.",
    )
    log_level: str = env(
        "LOG_LEVEL",
        choice("debug", "info", "warning", "error"),
        "info",
        "Least level that is logged.",
    )
    log_format: str = env(
        "LOG_FORMAT",
        choice("auto", "json", "console"),
        "auto",
        "`json`, `console` (for people), or `auto`: console on a terminal.",
    )

    # -- who may come in
    auth_mode: str = env(
        "AUTH_MODE",
        choice("headers"),
        "headers",
        "`headers`: an authenticating proxy in front sets `X-Tenant-ID` and `X-Role`.",
    )
    trusted_proxies: tuple[Any, ...] = env(
        "TRUSTED_PROXIES",
        CommaList(Network()),
        "",
        "Addresses or networks whose identity headers are believed; required with `AUTH_MODE=headers`.",
    )
    tenant_allowlist: tuple[str, ...] = env(
        "GATEWAY_TENANT_ALLOWLIST", _TENANTS, "", "Tenants that are served; empty: all."
    )
    policy_allowlist: tuple[str, ...] = env(
        "GATEWAY_POLICY_ALLOWLIST",
        CommaList(name("policy ids", r"[A-Za-z0-9_.:-]{1,128}")),
        "",
        "Policies that a decide may name; empty: all.",
    )

    # -- NATS
    nats_url: tuple[str, ...] = env(
        "NATS_URL",
        CommaList(
            name("nats://host:port or tls://host:port", r"(nats|tls|ws|wss)://[^\s,]+"),
            min_items=1,
        ),
        "nats://127.0.0.1:4222",
        "Servers, comma separated.",
        secret=True,
    )
    nats_user: str | None = env("NATS_USER", fields.String(), None, "User name.")
    nats_password: str | None = env(
        "NATS_PASSWORD", fields.String(), None, "Password.", secret=True
    )
    nats_token: str | None = env("NATS_TOKEN", fields.String(), None, "Token.", secret=True)
    nats_credentials_file: Path | None = env(
        "NATS_CREDENTIALS_FILE", ExistingFile(), None, "Credentials file (JWT and seed)."
    )
    nats_tls_ca_file: Path | None = env(
        "NATS_TLS_CA_FILE", ExistingFile(), None, "CA that signed the server's certificate."
    )
    nats_tls_cert_file: Path | None = env(
        "NATS_TLS_CERT_FILE", ExistingFile(), None, "This client's certificate."
    )
    nats_tls_key_file: Path | None = env(
        "NATS_TLS_KEY_FILE", ExistingFile(), None, "Key of this client's certificate."
    )
    nats_inbox_prefix: str = env(
        "NATS_INBOX_PREFIX", _SUBJECT, "_INBOX", "Prefix of the reply subjects."
    )
    nats_replicas: int = env(
        "NATS_REPLICAS", whole(1, 5), "1", "Replicas of streams and buckets; 3 in production."
    )
    nats_max_deliver: int = env(
        "NATS_MAX_DELIVER",
        whole(1, 1_000),
        "5",
        "Deliveries of a refused message before it becomes a dead letter.",
    )
    nats_ack_wait_ms: int = env(
        "NATS_ACK_WAIT_MS",
        whole(100, 3_600_000, "of milliseconds"),
        "30000",
        "How long the server waits for a consumer that says nothing.",
    )
    nats_backoff_ms: tuple[int, ...] = env(
        "NATS_BACKOFF_MS",
        CommaList(whole(0, 3_600_000, "of milliseconds"), min_items=1),
        "1000,2000,4000",
        "Pauses before the second, third, … delivery of a refused message; the last one repeats.",
    )

    # -- subjects
    decide_subject: str = env(
        "ROUTER_DECIDE_SUBJECT", _SUBJECT, "beamline.router.v1.decide", "Where the Router listens."
    )
    assignment_subject: str = env(
        "CAF_ASSIGNMENT_SUBJECT", _SUBJECT, "caf.exec.assign.v1", "Assignments; acks get `.ack`."
    )
    result_subject: str = env(
        "CAF_RESULT_SUBJECT",
        _PATTERN,
        "caf.exec.result.v1",
        "Results of workers; may hold wildcards.",
    )
    usage_subject: str = env(
        "USAGE_SUBJECT", _SUBJECT, "beamline.usage.v1.metered", "Usage events."
    )

    subject_allowlist: tuple[str, ...] = env(
        "NATS_SUBJECT_ALLOWLIST",
        CommaList(_PATTERN),
        "",
        "Subjects whose messages are taken in; each message's own subject must match one. Empty: the subject that is"
        " consumed (`CAF_RESULT_SUBJECT`).",
    )
    publish_usage: bool = env(
        "ENABLE_USAGE_PUBLISH",
        flag(),
        "true",
        "Whether results are metered. Usage that clients report is not concerned.",
    )

    # -- times of the work
    router_timeout_ms: int = env(
        "ROUTER_REQUEST_TIMEOUT_MS",
        whole(10, 60_000, "of milliseconds"),
        "5000",
        "Deadline of a request; a client may shorten its own with `X-Request-Timeout-Ms`.",
    )
    idempotency_ttl_ms: int = env(
        "IDEMPOTENCY_TTL_MS",
        whole(1_000, 7 * _DAY_MS, "of milliseconds"),
        "300000",
        "How long an id is remembered; the streams' duplicate window is 60 s longer.",
    )
    idempotency_lease_ms: int = env(
        "IDEMPOTENCY_LEASE_MS",
        whole(0, 600_000, "of milliseconds"),
        "0",
        "How long a decide with an id may stall before another request takes it over; 0: twice"
        " `ROUTER_REQUEST_TIMEOUT_MS`. Longer than any deadline.",
    )
    idempotency_local_entries: int = env(
        "IDEMPOTENCY_LOCAL_ENTRIES",
        whole(1, 10_000_000),
        "10000",
        "Finished outcomes that a worker remembers itself, so that a repeat costs no round trip.",
    )
    usage_dedupe_window_ms: int = env(
        "USAGE_DEDUPE_WINDOW_MS",
        whole(1_000, 31 * _DAY_MS, "of milliseconds"),
        str(_DAY_MS),
        "Within it a usage event is emitted at most once per tenant and assignment (or request).",
    )
    usage_accept_late: bool = env(
        "USAGE_ACCEPT_LATE",
        flag(),
        "false",
        "Accept usage events older than the window; these are at-least-once only.",
    )

    results_ttl_ms: int = env(
        "RESULTS_TTL_MS",
        whole(1_000, 7 * _DAY_MS, "of milliseconds"),
        "3600000",
        "How long a result is kept for those who ask for it.",
    )
    max_waiting: int = env(
        "GATEWAY_MAX_WAITING",
        whole(0, 500),
        "0",
        "Long polls and open streams in each worker before the next is answered 503; 0: half of the threads.",
    )

    sticky_ttl_ms: int = env(
        "STICKY_TTL_MS",
        whole(1_000, 31 * _DAY_MS, "of milliseconds"),
        "3600000",
        "How long a session stays with its provider, from when the mapping was made or moved; hits do not extend it.",
    )
    sticky_session_key: str = env(
        "STICKY_SESSION_KEY",
        name("a field's name: 1 to 64 of A-Z a-z 0-9 _ . -", r"[A-Za-z0-9_.-]{1,64}"),
        "session_id",
        "The field of a decide's `context` that names its session. Another field starts new mappings.",
    )

    # -- streams
    exec_max_age_ms: int = env(
        "EXEC_MAX_AGE_MS",
        whole(1_000, _YEAR_MS, "of milliseconds"),
        str(_DAY_MS),
        "How long `BEAMLINE_EXEC` keeps messages (at least its duplicate window).",
    )
    exec_max_bytes: int = env(
        "EXEC_MAX_BYTES",
        whole(1_048_576, 2**50, "of bytes"),
        str(2**30),
        "Size of `BEAMLINE_EXEC`; full, it refuses (503).",
    )
    usage_max_age_ms: int = env(
        "USAGE_MAX_AGE_MS",
        whole(1_000, _YEAR_MS, "of milliseconds"),
        str(7 * _DAY_MS),
        "How long `BEAMLINE_USAGE` keeps messages (at least its duplicate window).",
    )
    usage_max_bytes: int = env(
        "USAGE_MAX_BYTES",
        whole(1_048_576, 2**50, "of bytes"),
        str(2**30),
        "Size of `BEAMLINE_USAGE`; full, it refuses (503).",
    )
    dlq_max_age_ms: int = env(
        "DLQ_MAX_AGE_MS",
        whole(1_000, _YEAR_MS, "of milliseconds"),
        str(30 * _DAY_MS),
        "How long `BEAMLINE_DLQ` keeps dead letters.",
    )
    dlq_max_bytes: int = env(
        "DLQ_MAX_BYTES", whole(1_048_576, 2**50, "of bytes"), str(2**28), "Size of `BEAMLINE_DLQ`."
    )

    # -- telemetry
    metrics_tenants: tuple[str, ...] = env(
        "METRICS_TENANT_LABEL_ALLOWLIST",
        _TENANTS,
        "",
        "Tenants with a label value of their own; all others are `other`.",
    )
    metrics_dir: Path | None = env(
        "PROMETHEUS_MULTIPROC_DIR",
        fields.Function(deserialize=lambda value: Path(str(value))),
        None,
        "Folder of the workers' metric files, wiped at start; not set: a temporary one.",
    )
    otlp_endpoint: str | None = env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        name("an http(s) URL", r"https?://[^\s]+"),
        None,
        "Collector that traces are sent to; not set: none. The other `OTEL_*` variables keep their meaning.",
        secret=True,
        alias="OTLP_ENDPOINT",
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str], *, serving: bool = True) -> Self:
        """Parse ``environ``. Raises SettingsError with a line for each variable that is wrong.

        A variable that is set to the empty string counts as not set, as in shells and compose files.
        ``serving=False`` is for commands that let nobody in and need no ``AUTH_MODE``.
        """
        values, problems = parse(_VARIABLES, environ)
        settings = cls(**values)
        lines = list(problems.values())
        for involved, sentence in _contradictions(settings):
            if not serving and "AUTH_MODE" in involved:
                continue
            if not problems.keys() & involved:
                lines.append(sentence)
        if lines:
            raise SettingsError(lines)
        return settings

    @property
    def in_flight_cap(self) -> int:
        """Requests at work in one worker, so that two threads stay free for probes."""
        return self.max_in_flight or self.threads - 2

    @property
    def waiting_cap(self) -> int:
        """Long polls and open streams in one worker."""
        return min(self.max_waiting or self.threads // 2, self.in_flight_cap)

    @property
    def taken_in(self) -> tuple[str, ...]:
        """The subjects whose messages are taken in."""
        return self.subject_allowlist or (self.result_subject,)

    @property
    def lease_seconds(self) -> float:
        """How long an owner of a call may stall."""
        return (self.idempotency_lease_ms or 2 * self.router_timeout_ms) / 1000


def variables() -> tuple[Variable, ...]:
    """All declared variables, in the order of the declaration."""
    return _VARIABLES


def _contradictions(settings: Settings) -> Iterator[tuple[set[str], str]]:
    """Values that are fine alone and wrong together: the variables involved, and the sentence."""
    if settings.auth_mode == "headers" and not settings.trusted_proxies:
        yield (
            {"AUTH_MODE", "TRUSTED_PROXIES"},
            "TRUSTED_PROXIES: expected the addresses of the authenticating proxies, since"
            " AUTH_MODE=headers believes X-Tenant-ID and X-Role",
        )
    if settings.in_flight_cap > settings.threads - 2:
        yield (
            {"GATEWAY_MAX_IN_FLIGHT", "GATEWAY_THREADS"},
            f"GATEWAY_MAX_IN_FLIGHT: expected at most {settings.threads - 2}, two fewer than"
            " GATEWAY_THREADS, so that probes find a thread",
        )
    if settings.graceful_timeout_ms < settings.router_timeout_ms + _CLEANUP_MS:
        yield (
            {"GATEWAY_GRACEFUL_TIMEOUT_MS", "ROUTER_REQUEST_TIMEOUT_MS"},
            f"GATEWAY_GRACEFUL_TIMEOUT_MS: expected at least {_CLEANUP_MS} ms more than"
            f" ROUTER_REQUEST_TIMEOUT_MS ({settings.router_timeout_ms}), for the cleanup",
        )
    if settings.result_subject.endswith(">"):
        yield (
            {"CAF_RESULT_SUBJECT"},
            "CAF_RESULT_SUBJECT: expected a subject that does not end in >, which would take in its own dead"
            f" letters, got {settings.result_subject!r}",
        )
    if any(
        subject_covers(settings.result_subject, published)
        for published in (settings.assignment_subject, settings.usage_subject)
    ):
        yield (
            {"CAF_RESULT_SUBJECT", "CAF_ASSIGNMENT_SUBJECT", "USAGE_SUBJECT"},
            "CAF_RESULT_SUBJECT: expected a subject that covers neither CAF_ASSIGNMENT_SUBJECT nor USAGE_SUBJECT,"
            f" whose messages are no results, got {settings.result_subject!r}",
        )
    if settings.lease_seconds * 1000 <= settings.router_timeout_ms:
        yield (
            {"IDEMPOTENCY_LEASE_MS", "ROUTER_REQUEST_TIMEOUT_MS"},
            "IDEMPOTENCY_LEASE_MS: expected more than ROUTER_REQUEST_TIMEOUT_MS"
            f" ({settings.router_timeout_ms}), so that no call is still at work when it is taken over",
        )
    if bool(settings.nats_user) != bool(settings.nats_password):
        yield {"NATS_USER", "NATS_PASSWORD"}, "NATS_USER: expected together with NATS_PASSWORD"
    if bool(settings.nats_tls_cert_file) != bool(settings.nats_tls_key_file):
        yield (
            {"NATS_TLS_CERT_FILE", "NATS_TLS_KEY_FILE"},
            "NATS_TLS_CERT_FILE: expected together with NATS_TLS_KEY_FILE",
        )
    if int(settings.bind.rpartition(":")[2]) > 65535:
        yield {"GATEWAY_BIND"}, f"GATEWAY_BIND: expected a port up to 65535, got {settings.bind!r}"


_VARIABLES = tuple(declared(Settings))
