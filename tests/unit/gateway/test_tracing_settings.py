"""OpenTelemetry's variables: where traces go, and what is wrong with them, by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.settings import SettingsError
from gateway.telemetry.tracing.settings import forget_empty
from tests.unit.gateway.given import settings

BASE = "http://collector:4318"
COMPLETE = "http://collector:4318/v1/traces"
SECRET = "sw0rdf1sh"


def problems(**environ: str) -> list[str]:
    """What is wrong with an environment, a line a variable."""
    with pytest.raises(SettingsError) as caught:
        settings(**environ)
    return caught.value.problems


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE}, COMPLETE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{BASE}/"}, COMPLETE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{BASE}/prefix"}, f"{BASE}/prefix/v1/traces"),
        ({"OTLP_ENDPOINT": BASE}, COMPLETE),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{BASE}/x"}, f"{BASE}/x"),
        (
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{BASE}/x",
            },
            f"{BASE}/x",
        ),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, BASE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_SDK_DISABLED": "false"}, COMPLETE),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "http://localhost:4318/v1/traces"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "http://localhost:4317",
        ),
    ],
)
def test_where_traces_go(environ: dict[str, str], url: str | None) -> None:
    assert settings(**environ).traces_url == url


def test_what_is_set_for_traces_alone_wins() -> None:
    made = settings(
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_TIMEOUT="5000",
        OTEL_EXPORTER_OTLP_TRACES_TIMEOUT="2000",
        OTEL_EXPORTER_OTLP_COMPRESSION="gzip",
        OTEL_EXPORTER_OTLP_TRACES_COMPRESSION="none",
    )
    assert made.traces_protocol == "http/protobuf"
    assert made.traces_timeout_seconds == 2.0
    assert made.traces_compression == "none"


def test_an_export_may_take_a_second_unless_told_otherwise() -> None:
    assert settings().traces_timeout_seconds == 1.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:/tmp/x"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "HTTP"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_SDK_DISABLED", "perhaps"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_TRACES_SAMPLER_ARG", "nan"),
        ("OTEL_TRACES_SAMPLER_ARG", "half"),
        ("OTEL_PROPAGATORS", "b3"),
        ("OTEL_RESOURCE_ATTRIBUTES", "no pair"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b,,c=d"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "Bearer abc"),
        # Seconds, as OpenTelemetry for Python has it, would be a hundredth of a second here.
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0.5"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such/file"),
        ("OTEL_BSP_SCHEDULE_DELAY", "0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "-1"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-1"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "long"),
    ],
)
def test_a_wrong_value_is_named(name: str, value: str) -> None:
    [line] = problems(**{name: value})
    assert line.startswith(f"{name}: expected ")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b, c=x%20y,d="),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20a=="),
        ("OTEL_PROPAGATORS", "tracecontext"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
    ],
)
def test_what_the_specification_allows_is_taken(name: str, value: str) -> None:
    settings(**{name: value})


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "deflate",
            },
            "OTEL_EXPORTER_OTLP_COMPRESSION",
        ),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://key:{SECRET}@collector",
            },
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
        ({"OTEL_BSP_MAX_QUEUE_SIZE": "10"}, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
    ],
)
def test_what_is_wrong_together_is_named(environ: dict[str, str], named: str) -> None:
    [line] = problems(**environ)
    assert line.startswith(f"{named}: expected ")
    assert SECRET not in line


@pytest.mark.parametrize("kind", ["", "TRACES_"])
def test_a_certificate_wants_its_key(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "certificate.pem"
    file.touch()
    name = f"OTEL_EXPORTER_OTLP_{kind}CLIENT_CERTIFICATE"
    [line] = problems(**{name: str(file)})
    assert line.startswith(f"{name}: expected together with ")


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"]
)
def test_headers_for_the_collector_are_secret(name: str) -> None:
    assert SECRET not in problems(**{name: SECRET})[0]
    assert SECRET not in repr(settings(**{name: f"authorization={SECRET}"}))


def test_only_opentelemetrys_empty_variables_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("OTEL_PROPAGATORS", ""), ("OTEL_SERVICE_NAME", " "), ("OTHER", "")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    forget_empty(os.environ)
    assert "OTEL_PROPAGATORS" not in os.environ and "OTEL_SERVICE_NAME" not in os.environ
    assert os.environ["OTHER"] == "" and os.environ["OTEL_TRACES_SAMPLER"] == "always_on"
