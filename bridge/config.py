"""What a bridge needs to know, as frozen values. Nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSpec:
    """A stream that the bridge needs for ``subjects``.

    ``duplicate_window_ms`` and ``max_age_ms`` are lower bounds: an existing stream is widened, never
    narrowed. Where a stream of another name already holds a subject, that one is used as it is.
    """

    name: str
    subjects: tuple[str, ...]
    duplicate_window_ms: int
    max_age_ms: int
    max_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketSpec:
    """A key/value bucket; ``ttl_ms`` counts from a key's last change (``None``: keys stay).

    ``read_only``: this account reads it and neither makes nor changes it; while it is missing, the bridge is not ready.
    """

    name: str
    ttl_ms: int | None = None
    max_bytes: int = -1
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerSpec:
    """A durable pull consumer, shared by everyone who names it, on the stream that holds ``subject``.

    ``backoff_ms[n]`` is the pause before delivery ``n + 2`` of a refused message (the last value repeats);
    a message is refused for good at delivery number ``max_deliver``. ``ack_wait_ms`` is how long the server
    waits for a handler that says nothing.
    """

    subject: str
    durable: str
    ack_wait_ms: int = 30_000
    max_deliver: int = 5
    backoff_ms: tuple[int, ...] = (1_000, 2_000, 4_000)
    max_in_progress: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates for the connection: the CA that signs the server's, and this client's own."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeConfig:
    """Everything a `Bridge` is made from.

    ``publishes`` are the subjects that are published to (None: all of the streams'), ``requests`` those that are
    called (request-reply), ``listens`` those that are subscribed to, ``reads`` the streams that single messages are
    read from; with streams, buckets and consumers they make the list of permissions that the account needs
    (`bridge.required_permissions`).
    """

    servers: tuple[str, ...] = field(default=("nats://127.0.0.1:4222",), repr=False)
    name: str = "beamline-bridge"
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    credentials_file: Path | None = None
    tls: Tls | None = None
    inbox_prefix: str = "_INBOX"

    streams: tuple[StreamSpec, ...] = ()
    buckets: tuple[BucketSpec, ...] = ()
    publishes: tuple[str, ...] | None = None
    requests: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    listens: tuple[str, ...] = ()
    consumers: tuple[ConsumerSpec, ...] = ()
    replicas: int = 1

    max_in_flight: int = 64
    connect_timeout_seconds: float = 1.0
    reconnect_wait_seconds: float = 0.25
    ping_interval_seconds: float = 2.0
    max_outstanding_pings: int = 2
    audit_interval_seconds: float = 30.0
    measure_interval_seconds: float = 5.0
