"""Environment → frozen `Settings`: one declaration for the parser, the types and the documentation.

Each field names its variable, how it is parsed, its default and what it means. `Settings.from_environ` reads all
of them at once and reports **every** wrong one, so that a wrong environment is mended in one round. A value that
is secret is never shown, neither in errors nor in ``beamline-gateway settings``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from marshmallow import fields, validate

from bridge import subject_covers
from gateway.cores import Pinning
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
    path,
    whole,
)
from gateway.names import TENANT_PATTERN
from gateway.telemetry.tracing import settings as tracing_settings
from gateway.telemetry.tracing.settings import TracingSettings


class SettingsError(Exception):
    """The environment is wrong. ``problems`` holds a line a variable: what was expected, never a secret."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


_SUBJECT = name("a subject without wildcards", r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_PATTERN = name(
    "a subject, * and > allowed", r"([A-Za-z0-9_-]+|\*)(\.([A-Za-z0-9_-]+|\*))*(\.>)?|>"
)
_TENANTS = CommaList(name("tenant names", TENANT_PATTERN.pattern))
_DAY_MS = 24 * 3600 * 1000
_YEAR_MS = 366 * _DAY_MS
_CLEANUP_MS = 5_000
"""What a stopping worker needs beside the longest request: closing NATS, flushing spans."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(TracingSettings):
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
    pin_workers: Pinning = env(
        "GATEWAY_PIN_WORKERS",
        choice("auto", "on", "off"),
        "auto",
        "Bind each worker to a core, which makes it a quarter faster; `auto`: where there are as many workers as cores"
        " and no CPU quota.",
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
    read_timeout_ms: int = env(
        "GATEWAY_READ_TIMEOUT_MS",
        whole(100, 600_000, "of milliseconds"),
        "10000",
        "How long a request may take to arrive, headers and body; a slower one is answered 408. It is not part of its"
        " deadline.",
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
        "Lowest level that is logged.",
    )
    log_format: str = env(
        "LOG_FORMAT",
        choice("auto", "json", "console"),
        "auto",
        "`json`, `console` (for people), or `auto`: console on a terminal.",
    )
    log_client_address: bool = env(
        "LOG_CLIENT_ADDRESS",
        flag(),
        "false",
        "Whether access lines name the address that a request came from (a proxy's, where there is one). It is"
        " personal data.",
    )

    # -- who may come in
    auth_mode: str = env(
        "AUTH_MODE",
        choice("api_key", "jwt", "headers"),
        "api_key",
        "`api_key`: keys made by `beamline-gateway apikeys`; `jwt`: tokens of an identity provider; `headers`: an"
        " authenticating proxy in front sets `X-Tenant-ID` and `X-Role`.",
    )
    apikeys_source: str = env(
        "APIKEYS_SOURCE",
        choice("file", "bucket"),
        "file",
        "Where API keys are kept: `APIKEYS_FILE`, or for a fleet the NATS bucket `BEAMLINE_APIKEYS`.",
    )
    apikeys_file: Path = env(
        "APIKEYS_FILE",
        path(),
        "apikeys.json",
        "File of the API keys (their SHA-256), made by `beamline-gateway apikeys create`.",
    )
    jwt_issuer: str | None = env(
        "JWT_ISSUER",
        fields.String(),
        None,
        "Claim `iss` that tokens must have; required with `AUTH_MODE=jwt`.",
    )
    jwt_audience: str | None = env(
        "JWT_AUDIENCE",
        fields.String(),
        None,
        "Claim `aud` that tokens must have or contain; required with `AUTH_MODE=jwt`.",
    )
    jwt_jwks_file: Path | None = env(
        "JWT_JWKS_FILE",
        ExistingFile(),
        None,
        "Public keys of the identity provider (JWKS), as a file.",
    )
    jwt_jwks_url: str | None = env(
        "JWT_JWKS_URL",
        name(
            "an https URL (http on this machine only)",
            r"https://[^\s@]+|http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?(/[^\s@]*)?",
        ),
        None,
        "The same, fetched from the identity provider.",
    )
    jwt_secret: str | None = env(
        "JWT_SECRET",
        fields.String(validate=validate.Length(32, error="expected at least 32 characters")),
        None,
        "Shared secret of HS256 tokens, instead of public keys.",
        secret=True,
    )
    jwt_algorithms: tuple[str, ...] = env(
        "JWT_ALGORITHMS",
        CommaList(choice("RS256", "ES256", "HS256")),
        "",
        "Algorithms that tokens may be signed with; empty: `RS256,ES256` with a JWKS, `HS256` with a secret.",
    )
    jwt_leeway_ms: int = env(
        "JWT_LEEWAY_MS",
        whole(0, 300_000, "of milliseconds"),
        "10000",
        "How far the identity provider's clock may be off.",
    )
    jwt_jwks_ttl_ms: int = env(
        "JWT_JWKS_TTL_MS",
        whole(1_000, _DAY_MS, "of milliseconds"),
        "600000",
        "How long public keys are trusted; they are read again from half of it on, and for an unknown `kid`.",
    )
    trusted_proxies: tuple[Any, ...] = env(
        "TRUSTED_PROXIES",
        CommaList(Network()),
        "",
        "Addresses or networks whose identity headers are trusted; required with `AUTH_MODE=headers`.",
    )
    roles_source: str = env(
        "ROLES_SOURCE",
        choice("file", "bucket"),
        "file",
        "Where roles are kept: `ROLES_FILE`, or for a fleet the NATS bucket `BEAMLINE_ROLES`.",
    )
    roles_file: Path | None = env(
        "ROLES_FILE",
        ExistingFile(),
        None,
        "File of the roles (TOML; `beamline-gateway roles show` prints one); not set: admin, operator, service and"
        " viewer as they come with the gateway.",
    )
    rbac_cache_ttl_ms: int = env(
        "RBAC_CACHE_TTL_MS",
        whole(100, 3_600_000, "of milliseconds"),
        "60000",
        "How long an answer about a key or a role is used again: a revoked key is refused within it.",
    )
    rbac_deny_ttl_ms: int = env(
        "RBAC_DENY_TTL_MS",
        whole(0, 3_600_000, "of milliseconds"),
        "5000",
        "The same for denials: a new key or permission works within it.",
    )
    audit_log_file: Path = env(
        "AUDIT_LOG_FILE",
        path(),
        "audit.log",
        "File that operators' commands write down what they do in: who, what, when, to which tenant.",
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

    # -- how much
    rate_limit_global_requests: int = env(
        "RATE_LIMIT_GLOBAL_REQUESTS",
        whole(0, 1_000_000_000),
        "0",
        "Requests in a window that this instance takes from all callers together, before the next is answered 429;"
        " probes are not counted; 0: no limit. Counted over all workers, not over instances: behind N of them, give"
        " each an Nth.",
    )
    rate_limit_tenant_requests: int = env(
        "RATE_LIMIT_TENANT_REQUESTS",
        whole(0, 1_000_000_000),
        "0",
        "The same for each tenant; only requests with valid credentials count.",
    )
    rate_limit_window_ms: int = env(
        "RATE_LIMIT_WINDOW_MS",
        whole(1_000, _DAY_MS, "of milliseconds"),
        "60000",
        "Length of a window; it starts with the first request that it counts.",
    )
    rate_limit_file: Path | None = env(
        "RATE_LIMIT_FILE",
        path(),
        None,
        "File on a local disk that the workers of this instance count in, emptied at start; not set: a temporary one."
        " Only made where a limit is on.",
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
        "How long a consumer may be silent about a message before the server delivers it again.",
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
        "Whether results are metered. Usage that clients report is not affected.",
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
    metrics_bind: str | None = env(
        "METRICS_BIND",
        name("host:port", r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9_.-]*):\d{1,5}"),
        None,
        "Address of its own for `/metrics`, which `GATEWAY_BIND` then does not answer; not set: `GATEWAY_BIND`.",
    )
    metrics_dir: Path | None = env(
        "PROMETHEUS_MULTIPROC_DIR",
        path(),
        None,
        "Folder in which each run makes one for its workers' metric files, and removes those of runs that are over;"
        " not set: the system's temporary folder.",
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
    def algorithms(self) -> tuple[str, ...]:
        """Algorithms that tokens may be signed with."""
        fitting = ("HS256",) if self.jwt_secret is not None else ("RS256", "ES256")
        return self.jwt_algorithms or fitting

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
    """All declared variables, in the order of the declaration; OpenTelemetry's last."""
    return _VARIABLES


def _contradictions(settings: Settings) -> Iterator[tuple[set[str], str]]:
    """Values that are fine alone and wrong together: the variables involved, and the sentence."""
    if settings.auth_mode == "headers" and not settings.trusted_proxies:
        yield (
            {"AUTH_MODE", "TRUSTED_PROXIES"},
            "TRUSTED_PROXIES: expected the addresses of the authenticating proxies, since"
            " AUTH_MODE=headers believes X-Tenant-ID and X-Role",
        )
    if settings.auth_mode == "api_key":
        yield from _without_keys(settings)
    if settings.auth_mode == "jwt":
        yield from _unusable_tokens(settings)
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
    yield from tracing_settings.contradictions(settings)
    for variable, bind in (
        ("GATEWAY_BIND", settings.bind),
        ("METRICS_BIND", settings.metrics_bind),
    ):
        if bind is not None and int(bind.rpartition(":")[2]) > 65535:
            yield {variable}, f"{variable}: expected a port up to 65535, got {bind!r}"
    if settings.metrics_bind == settings.bind:
        yield (
            {"GATEWAY_BIND", "METRICS_BIND"},
            f"METRICS_BIND: expected another address than GATEWAY_BIND's, got {settings.bind!r}",
        )


def _without_keys(settings: Settings) -> Iterator[tuple[set[str], str]]:
    if settings.apikeys_source == "file" and not os.access(settings.apikeys_file, os.R_OK):
        yield (
            {"AUTH_MODE", "APIKEYS_SOURCE", "APIKEYS_FILE"},
            f"APIKEYS_FILE: expected a readable file, got {str(settings.apikeys_file)!r}; make it with"
            " `beamline-gateway apikeys create --tenant … --role …`",
        )


def _unusable_tokens(settings: Settings) -> Iterator[tuple[set[str], str]]:
    for variable, value in (
        ("JWT_ISSUER", settings.jwt_issuer),
        ("JWT_AUDIENCE", settings.jwt_audience),
    ):
        if not value:
            yield {"AUTH_MODE", variable}, f"{variable}: expected a value, since AUTH_MODE=jwt"
    sources = (settings.jwt_jwks_file, settings.jwt_jwks_url, settings.jwt_secret)
    if sum(source is not None for source in sources) != 1:
        yield (
            {"AUTH_MODE", "JWT_JWKS_FILE", "JWT_JWKS_URL", "JWT_SECRET"},
            "JWT_JWKS_URL: expected exactly one of JWT_JWKS_URL, JWT_JWKS_FILE and JWT_SECRET, since AUTH_MODE=jwt",
        )
    elif ("HS256" in settings.algorithms) != (settings.jwt_secret is not None) or (
        settings.jwt_secret is not None and len(settings.algorithms) > 1
    ):
        yield (
            {"AUTH_MODE", "JWT_ALGORITHMS", "JWT_JWKS_FILE", "JWT_JWKS_URL", "JWT_SECRET"},
            "JWT_ALGORITHMS: expected HS256 with JWT_SECRET, RS256 or ES256 with a JWKS",
        )


_OTEL = tuple(declared(TracingSettings))
_VARIABLES = (*tuple(declared(Settings))[len(_OTEL) :], *_OTEL)
