"""What the bridge is given: the streams, buckets, subjects and consumers of NATS that the settings stand for.

Apart from `gateway.app`, so that an operator's command needs no web framework to know it.
"""

from __future__ import annotations

from bridge import BridgeConfig, BucketSpec, StreamSpec, Tls, subject_covers
from gateway import sticky
from gateway.access import roles
from gateway.idempotency import BUCKET
from gateway.identity import keys
from gateway.intake import consumer_spec
from gateway.operations import dead_letters, results
from gateway.settings import Settings

_WINDOW_MARGIN_MS = 60_000
"""How much longer than an id is remembered the stream recognises its message (design, section 3)."""


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
            *_access_buckets(settings),
        ),
        publishes=(
            settings.assignment_subject,
            f"{settings.assignment_subject}.ack",
            settings.usage_subject,
            f"{settings.result_subject}.dlq",
        ),
        requests=(settings.decide_subject,),
        reads=("BEAMLINE_USAGE", dead_letters.STREAM),
        listens=(f"$KV.{results.BUCKET}.>",),
        consumers=(consumer_spec(settings),),
        replicas=settings.nats_replicas,
        max_in_flight=settings.in_flight_cap,
    )


def _access_buckets(settings: Settings) -> tuple[BucketSpec, ...]:
    """Those of keys and roles, where they are kept in NATS: read by the gateway, written by operators only."""
    kept_in_nats = {
        keys.BUCKET: settings.auth_mode == "api_key" and settings.apikeys_source == "bucket",
        roles.BUCKET: settings.roles_source == "bucket",
    }
    return tuple(
        BucketSpec(name=name, read_only=True) for name, is_used in kept_in_nats.items() if is_used
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
