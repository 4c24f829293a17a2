"""What the bridge is told of the settings: streams that keep a message at least as long as its id."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge import StreamSpec, subject_covers
from gateway.bridge_config import bridge_config
from tests.unit.gateway.given import settings

MINUTE_MS = 60_000
DAY_MS = 24 * 60 * MINUTE_MS


def streams(**environ: str) -> dict[str, StreamSpec]:
    return {spec.name: spec for spec in bridge_config(settings(**environ)).streams}


def test_there_are_the_three_streams_of_the_contract_with_its_subjects() -> None:
    assert {name: set(spec.subjects) for name, spec in streams().items()} == {
        "BEAMLINE_EXEC": {
            "caf.exec.assign.v1",
            "caf.exec.assign.v1.ack",
            "caf.exec.result.v1",
        },
        "BEAMLINE_USAGE": {"beamline.usage.v1.metered"},
        "BEAMLINE_DLQ": {
            "caf.exec.assign.v1.dlq",
            "caf.exec.assign.v1.ack.dlq",
            "caf.exec.result.v1.dlq",
            "beamline.usage.v1.metered.dlq",
        },
    }


@pytest.mark.parametrize("ttl_ms", [1_000, 300_000, 2 * DAY_MS])
@pytest.mark.parametrize("usage_window_ms", [1_000, DAY_MS, 3 * DAY_MS])
def test_a_stream_knows_ids_for_longer_than_a_claim_lasts_and_keeps_messages_as_long(
    ttl_ms: int, usage_window_ms: int
) -> None:
    made = streams(
        IDEMPOTENCY_TTL_MS=str(ttl_ms),
        USAGE_DEDUPE_WINDOW_MS=str(usage_window_ms),
        EXEC_MAX_AGE_MS="1000",
        USAGE_MAX_AGE_MS="1000",
    )
    window_ms = ttl_ms + MINUTE_MS
    assert made["BEAMLINE_EXEC"].duplicate_window_ms == window_ms
    assert made["BEAMLINE_USAGE"].duplicate_window_ms == max(window_ms, usage_window_ms)
    for spec in made.values():
        assert spec.max_age_ms >= spec.duplicate_window_ms


@pytest.mark.parametrize("pattern", ["caf.exec.result.*", "caf.*.result.v1", "*.exec.result.v1"])
def test_no_stream_has_overlapping_subjects_whatever_pattern_results_have(pattern: str) -> None:
    for spec in streams(CAF_RESULT_SUBJECT=pattern).values():
        for one in spec.subjects:
            assert [other for other in spec.subjects if subject_covers(other, one)] == [one]


def test_sizes_replicas_and_servers_are_passed_on() -> None:
    config = bridge_config(
        settings(
            NATS_URL="nats://a:1,nats://b:2",
            NATS_REPLICAS="3",
            EXEC_MAX_BYTES="1048576",
            NATS_INBOX_PREFIX="_INBOX_GATEWAY",
        )
    )
    assert config.servers == ("nats://a:1", "nats://b:2")
    assert config.replicas == 3 and config.inbox_prefix == "_INBOX_GATEWAY"
    assert config.streams[0].max_bytes == 1_048_576
    assert config.requests == ("beamline.router.v1.decide",)


def test_tls_is_used_where_any_of_its_files_is_named(tmp_path: Path) -> None:
    assert bridge_config(settings()).tls is None
    authority = tmp_path / "ca.pem"
    authority.touch()
    tls = bridge_config(settings(NATS_TLS_CA_FILE=str(authority))).tls
    assert tls is not None and tls.ca_file == authority and tls.cert_file is None
