"""The exporter of spans: OTLP over HTTP or gRPC, as the settings say."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from opentelemetry.sdk.trace.export import SpanExporter

from gateway.json import dumps
from gateway.telemetry.tracing.otlp.encoder import encode_spans
from gateway.telemetry.tracing.settings import TracingSettings

_RECONNECT_MS: Final = 5_000
"""How seldom at most a collector that is away is looked for. gRPC's own pauses grow to two minutes, in which one that
is back would get nothing."""
_RETRY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.1s",
    "maxBackoff": "0.5s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}
"""Within a batch's time. A connection whose collector was restarted is found dead by the next batch, and the exporter's
own first pause is about as long as the time that a batch has: it would be lost."""


def otlp_exporter(settings: TracingSettings) -> SpanExporter:
    """The exporter that the settings describe. Raises ValueError where they say that traces are not sent."""
    url = settings.traces_url
    if url is None:
        raise ValueError("traces are not sent")
    return _grpc(settings, url) if settings.traces_protocol == "grpc" else _http(settings, url)


# Each imports what it needs: it costs a worker some megabytes. Certificates and headers the exporters read from the
# environment themselves.


def _http(settings: TracingSettings, url: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http import Compression, trace_exporter

    _encode_cheaply(trace_exporter)
    return trace_exporter.OTLPSpanExporter(
        url,
        timeout=settings.traces_timeout_seconds,
        compression=Compression(settings.traces_compression),
    )


def _grpc(settings: TracingSettings, url: str) -> SpanExporter:
    from grpc import Compression
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter

    _encode_cheaply(trace_exporter)
    gzip = settings.traces_compression == "gzip"
    return trace_exporter.OTLPSpanExporter(
        url,
        insecure=url.startswith("http://"),
        timeout=settings.traces_timeout_seconds,
        compression=Compression.Gzip if gzip else Compression.NoCompression,
        channel_options=(
            # gRPC takes whole numbers, whatever the exporter says of its options.
            ("grpc.max_reconnect_backoff_ms", _RECONNECT_MS),  # type: ignore[arg-type]
            (
                "grpc.service_config",
                dumps({"methodConfig": [{"name": [{}], "retryPolicy": _RETRY}]}).decode(),
            ),
        ),
    )


def _encode_cheaply(exporter: ModuleType) -> None:
    """Both exporters call ``encode_spans`` by its name in their module: there is no other way in."""
    vars(exporter)["encode_spans"] = encode_spans
