"""create_app: the only place where the parts meet."""

from __future__ import annotations

import threading
from typing import Any

from flask import Flask
from flask.json.provider import JSONProvider

from bridge import Bridge, BridgeConfig, BucketSpec, StreamSpec, Tls, subject_covers
from gateway import blueprints, json, sticky
from gateway.access import Allowlists
from gateway.door import Door
from gateway.gate import Gate
from gateway.idempotency import BUCKET, Leases, Replays
from gateway.identity import HeaderAuthenticator
from gateway.intake import consumer_spec
from gateway.operations import results
from gateway.runtime import EXTENSION, Runtime
from gateway.settings import Settings
from gateway.sticky import Sessions
from gateway.telemetry.metrics import TenantLabel
from gateway.telemetry.tracing import Tracing

_WINDOW_MARGIN_MS = 60_000
"""How much longer than an id is remembered the stream recognises its message (design, section 3)."""


class OrjsonProvider(JSONProvider):
    """Flask's JSON, by orjson."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """See `flask.json.provider.JSONProvider`."""
        return json.dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """See `flask.json.provider.JSONProvider`."""
        return json.loads(s)


def create_app(settings: Settings, bridge: Bridge, tracing: Tracing | None = None) -> Flask:
    """The WSGI app over a bridge, which it does not start. Makes no thread and no connection."""
    app = Flask("gateway", static_folder=None)
    app.json = OrjsonProvider(app)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    allowlists = Allowlists.of(settings.tenant_allowlist, settings.policy_allowlist)
    gate = Gate(settings.in_flight_cap)
    app.extensions[EXTENSION] = Runtime(
        settings,
        bridge,
        allowlists,
        tenant_label=TenantLabel(settings.metrics_tenants),
        replays=Replays(settings.idempotency_local_entries, lambda: bridge.generation),
        leases=Leases(settings.lease_seconds),
        sessions=Sessions(),
        gate=gate,
        waiting=threading.BoundedSemaphore(settings.waiting_cap),
    )
    door = Door(
        settings,
        HeaderAuthenticator(settings.trusted_proxies),
        allowlists,
        tracing or Tracing(settings),
        gate,
    )
    door.install(app)
    for blueprint in blueprints.ALL:
        app.register_blueprint(blueprint)
    return app


def bridge_config(settings: Settings, *, name: str = "beamline-gateway") -> BridgeConfig:
    """What the bridge needs to know of the settings."""
    tls = (settings.nats_tls_ca_file, settings.nats_tls_cert_file, settings.nats_tls_key_file)
    return BridgeConfig(
        servers=settings.nats_url,
        name=name,
        user=settings.nats_user,
        password=settings.nats_password,
        token=settings.nats_token,
        credentials_file=settings.nats_credentials_file,
        tls=Tls(ca_file=tls[0], cert_file=tls[1], key_file=tls[2]) if any(tls) else None,
        inbox_prefix=settings.nats_inbox_prefix,
        streams=_streams(settings),
        buckets=(
            BucketSpec(name=BUCKET, ttl_ms=settings.idempotency_ttl_ms),
            BucketSpec(name=results.BUCKET, ttl_ms=settings.results_ttl_ms),
            BucketSpec(name=sticky.BUCKET, ttl_ms=settings.sticky_ttl_ms),
        ),
        publishes=(
            settings.assignment_subject,
            f"{settings.assignment_subject}.ack",
            settings.usage_subject,
            f"{settings.result_subject}.dlq",
        ),
        requests=(settings.decide_subject,),
        reads=("BEAMLINE_USAGE",),
        listens=(f"$KV.{results.BUCKET}.>",),
        consumers=(consumer_spec(settings),),
        replicas=settings.nats_replicas,
        max_in_flight=settings.in_flight_cap,
    )


def _streams(settings: Settings) -> tuple[StreamSpec, ...]:
    """The three streams of design section 4. Each keeps messages at least as long as it knows their ids."""
    window_ms = settings.idempotency_ttl_ms + _WINDOW_MARGIN_MS
    usage_window_ms = max(window_ms, settings.usage_dedupe_window_ms)
    exec_subjects = _disjoint(
        settings.assignment_subject,
        f"{settings.assignment_subject}.ack",
        settings.result_subject,
    )
    return (
        StreamSpec(
            name="BEAMLINE_EXEC",
            subjects=exec_subjects,
            duplicate_window_ms=window_ms,
            max_age_ms=max(settings.exec_max_age_ms, window_ms),
            max_bytes=settings.exec_max_bytes,
        ),
        StreamSpec(
            name="BEAMLINE_USAGE",
            subjects=(settings.usage_subject,),
            duplicate_window_ms=usage_window_ms,
            max_age_ms=max(settings.usage_max_age_ms, usage_window_ms),
            max_bytes=settings.usage_max_bytes,
        ),
        StreamSpec(
            name="BEAMLINE_DLQ",
            subjects=_disjoint(
                *(f"{subject}.dlq" for subject in (*exec_subjects, settings.usage_subject))
            ),
            # A crash between the letter and the end of its message brings the message back after this time.
            duplicate_window_ms=max(120_000, 2 * settings.nats_ack_wait_ms),
            max_age_ms=max(settings.dlq_max_age_ms, 2 * settings.nats_ack_wait_ms),
            max_bytes=settings.dlq_max_bytes,
        ),
    )


def _disjoint(*subjects: str) -> tuple[str, ...]:
    """Without those that another one covers: a stream takes no overlapping subjects."""
    return tuple(
        subject
        for subject in dict.fromkeys(subjects)
        if not any(other != subject and subject_covers(other, subject) for other in subjects)
    )
