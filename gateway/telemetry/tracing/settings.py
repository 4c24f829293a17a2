"""The OpenTelemetry variables: the standard ones that traces go by, declared, so that a wrong one stops the start.

Names and meanings are OpenTelemetry's (https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
and …/protocol/exporter/); ``OTEL_EXPORTER_OTLP_TRACES_…`` beats ``OTEL_EXPORTER_OTLP_…``. Times are milliseconds, as
there, though OpenTelemetry for Python takes ``OTEL_EXPORTER_OTLP_TIMEOUT`` for seconds: it is handed over by us. The
rest the SDK reads from the environment itself.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from marshmallow import fields, validate

from gateway.environment import CommaList, ExistingFile, choice, env, flag, name, whole

Protocol = Literal["http/protobuf", "grpc"]
Compression = Literal["none", "gzip", "deflate"]

_DEFAULT_PORT = {"http/protobuf": 4318, "grpc": 4317}
_TRACES_PATH = "/v1/traces"
_PAIRS = r"\s*[^\s=,]+\s*=[^,]*(,\s*[^\s=,]+\s*=[^,]*)*"


def _url() -> fields.String:
    return name("an http(s) URL", r"https?://[^\s/]+[^\s]*")


def _protocol() -> fields.String:
    return choice("http/protobuf", "grpc")


def _pairs() -> fields.String:
    return name("key=value pairs, comma separated", _PAIRS)


def _timeout() -> fields.Integer:
    return whole(100, 60_000, "of milliseconds")


def _compression() -> fields.String:
    return choice("none", "gzip", "deflate")


def _count() -> fields.Integer:
    return whole(0, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class TracingSettings:
    """What traces go by. Made as a part of `gateway.settings.Settings`."""

    otlp_endpoint: str | None = env(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        _url(),
        None,
        "Collector that traces are sent to; over HTTP `/v1/traces` is appended. Not set: none.",
        secret=True,
        alias="OTLP_ENDPOINT",
    )
    otlp_traces_endpoint: str | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        _url(),
        None,
        "The same, used as it is: nothing is appended.",
        secret=True,
    )
    otlp_protocol: str = env(
        "OTEL_EXPORTER_OTLP_PROTOCOL", _protocol(), "http/protobuf", "How traces are sent."
    )
    otlp_traces_protocol: str | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", _protocol(), None, "The same, for traces alone."
    )
    traces_exporter: str | None = env(
        "OTEL_TRACES_EXPORTER",
        choice("otlp", "none"),
        None,
        "`none` switches traces off; `otlp` without an endpoint sends them to this machine. Not set: `otlp` where an"
        " endpoint is set.",
    )
    sdk_disabled: bool = env("OTEL_SDK_DISABLED", flag(), "false", "Switches traces off.")
    service_name: str | None = env(
        "OTEL_SERVICE_NAME",
        fields.String(),
        None,
        "Not set: the `service.name` of `OTEL_RESOURCE_ATTRIBUTES`, or `beamline-gateway`.",
    )
    resource_attributes: str | None = env(
        "OTEL_RESOURCE_ATTRIBUTES",
        _pairs(),
        None,
        "Attributes of this instance, such as `deployment.environment.name=prod`; values URL-encoded.",
    )
    sampler: str = env(
        "OTEL_TRACES_SAMPLER",
        choice(
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ),
        "parentbased_always_on",
        "Which traces are recorded; `parentbased_…` follows the caller's `traceparent` first.",
    )
    sampler_arg: float | None = env(
        "OTEL_TRACES_SAMPLER_ARG",
        fields.Float(
            validate=validate.Range(0, 1, error="expected a number from 0 to 1"),
            error_messages={
                "invalid": "expected a number from 0 to 1",
                "special": "expected a number from 0 to 1",
            },
        ),
        None,
        "The ratio of `…traceidratio`; not set: 1.",
    )
    propagators: tuple[str, ...] = env(
        "OTEL_PROPAGATORS",
        CommaList(choice("tracecontext", "baggage"), min_items=1),
        "tracecontext,baggage",
        "What is read of a request's trace context. W3C `traceparent` is what goes out to NATS; baggage never does.",
    )
    otlp_headers: str | None = env(
        "OTEL_EXPORTER_OTLP_HEADERS",
        _pairs(),
        None,
        "Headers for the collector, such as `authorization=Bearer%20…`; values URL-encoded.",
        secret=True,
    )
    otlp_traces_headers: str | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
        _pairs(),
        None,
        "The same, for traces alone.",
        secret=True,
    )
    otlp_timeout_ms: int = env(
        "OTEL_EXPORTER_OTLP_TIMEOUT",
        _timeout(),
        "1000",
        "How long a batch may take; then it is lost.",
    )
    otlp_traces_timeout_ms: int | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", _timeout(), None, "The same, for traces alone."
    )
    otlp_compression: str = env(
        "OTEL_EXPORTER_OTLP_COMPRESSION",
        _compression(),
        "none",
        "Compression of what is sent; over gRPC `none` or `gzip`.",
    )
    otlp_traces_compression: str | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", _compression(), None, "The same, for traces alone."
    )
    otlp_certificate: Path | None = env(
        "OTEL_EXPORTER_OTLP_CERTIFICATE",
        ExistingFile(),
        None,
        "CA that signed the collector's certificate.",
    )
    otlp_client_certificate: Path | None = env(
        "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        ExistingFile(),
        None,
        "This client's certificate.",
    )
    otlp_client_key: Path | None = env(
        "OTEL_EXPORTER_OTLP_CLIENT_KEY",
        ExistingFile(),
        None,
        "Key of this client's certificate.",
    )
    otlp_traces_certificate: Path | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        ExistingFile(),
        None,
        "As `OTEL_EXPORTER_OTLP_CERTIFICATE`, for traces alone.",
    )
    otlp_traces_client_certificate: Path | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
        ExistingFile(),
        None,
        "As `OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE`, for traces alone.",
    )
    otlp_traces_client_key: Path | None = env(
        "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
        ExistingFile(),
        None,
        "As `OTEL_EXPORTER_OTLP_CLIENT_KEY`, for traces alone.",
    )
    batch_delay_ms: int = env(
        "OTEL_BSP_SCHEDULE_DELAY",
        whole(1, 600_000, "of milliseconds"),
        "5000",
        "How long spans are gathered before they are sent.",
    )
    batch_queue: int = env(
        "OTEL_BSP_MAX_QUEUE_SIZE",
        whole(1, 1_000_000),
        "2048",
        "Spans that wait in a worker; with more, the oldest are lost.",
    )
    batch_size: int = env(
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", whole(1, 1_000_000), "512", "Spans that are sent at once."
    )
    batch_timeout_ms: int = env(
        "OTEL_BSP_EXPORT_TIMEOUT",
        whole(0, 600_000, "of milliseconds"),
        "30000",
        "Has no effect in OpenTelemetry for Python; see `OTEL_EXPORTER_OTLP_TIMEOUT`.",
    )
    # The SDK reads these from the environment itself.
    attributes: int | None = env(
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        _count(),
        None,
        "Attributes that a span, an event or a link may have; not set: 128.",
    )
    span_attributes: int | None = env(
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", _count(), None, "The same, for spans alone."
    )
    event_attributes: int | None = env(
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", _count(), None, "The same, for events alone."
    )
    link_attributes: int | None = env(
        "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", _count(), None, "The same, for links alone."
    )
    span_events: int = env(
        "OTEL_SPAN_EVENT_COUNT_LIMIT", _count(), "128", "Events that a span may have."
    )
    span_links: int = env(
        "OTEL_SPAN_LINK_COUNT_LIMIT", _count(), "128", "Links that a span may have."
    )
    attribute_length: int | None = env(
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        _count(),
        None,
        "Length at which a text among the attributes is cut off; not set: nowhere.",
    )
    span_attribute_length: int | None = env(
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", _count(), None, "The same, for spans alone."
    )

    @property
    def traces_protocol(self) -> Protocol:
        """How traces are sent."""
        return cast(Protocol, self.otlp_traces_protocol or self.otlp_protocol)

    @property
    def traces_url(self) -> str | None:
        """Where traces are sent to, complete; None where they are not."""
        endpoint = self.otlp_traces_endpoint or self.otlp_endpoint
        if self.sdk_disabled or self.traces_exporter == "none":
            return None
        if endpoint is None:
            if self.traces_exporter is None:
                return None
            endpoint = f"http://localhost:{_DEFAULT_PORT[self.traces_protocol]}"
        if self.otlp_traces_endpoint or self.traces_protocol == "grpc":
            return endpoint
        return endpoint.removesuffix("/") + _TRACES_PATH

    @property
    def traces_timeout_seconds(self) -> float:
        """How long one export may take."""
        return (self.otlp_traces_timeout_ms or self.otlp_timeout_ms) / 1000

    @property
    def traces_compression(self) -> Compression:
        """How exports are compressed."""
        return cast(Compression, self.otlp_traces_compression or self.otlp_compression)


def forget_empty(environ: MutableMapping[str, str]) -> None:
    """Take out OpenTelemetry's variables that are set to the empty string: it means "not set", but the SDK takes some
    of them for wrong values when it is imported."""
    for variable, value in tuple(environ.items()):
        if variable.startswith("OTEL_") and not value.strip():
            del environ[variable]


def contradictions(settings: TracingSettings) -> Iterator[tuple[set[str], str]]:
    """Values that are fine alone and wrong together: the variables involved, and the sentence."""
    if settings.traces_protocol == "grpc" and settings.traces_compression == "deflate":
        yield (
            {"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_COMPRESSION"},
            "OTEL_EXPORTER_OTLP_COMPRESSION: expected none or gzip, since traces are sent over gRPC",
        )
    if settings.traces_protocol == "grpc" and "@" in (settings.traces_url or ""):
        yield (
            {"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_ENDPOINT"},
            "OTEL_EXPORTER_OTLP_ENDPOINT: expected a URL without user and password, since traces are sent over gRPC;"
            " credentials go into OTEL_EXPORTER_OTLP_HEADERS",
        )
    if settings.batch_size > settings.batch_queue:
        yield (
            {"OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"},
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: expected at most OTEL_BSP_MAX_QUEUE_SIZE"
            f" ({settings.batch_queue}), got {settings.batch_size}",
        )
    for kind, certificate, key in (
        ("", settings.otlp_client_certificate, settings.otlp_client_key),
        ("TRACES_", settings.otlp_traces_client_certificate, settings.otlp_traces_client_key),
    ):
        variables = [f"OTEL_EXPORTER_OTLP_{kind}CLIENT_{part}" for part in ("CERTIFICATE", "KEY")]
        if (certificate is None) != (key is None):
            yield set(variables), f"{variables[0]}: expected together with {variables[1]}"
