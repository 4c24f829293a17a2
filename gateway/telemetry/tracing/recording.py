"""Recording: OpenTelemetry's SDK as this process uses it. Imported only where traces are sent."""

from __future__ import annotations

import uuid
from importlib.metadata import version
from typing import Final

from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

from gateway.telemetry.tracing.discretion import Discreet
from gateway.telemetry.tracing.otlp.exporter import otlp_exporter
from gateway.telemetry.tracing.settings import TracingSettings
from gateway.telemetry.tracing.tracer import trace_id_wanted

_PRODUCT: Final = "beamline-gateway"


def recording_provider(
    settings: TracingSettings, exporter: SpanExporter | None, service: str | None
) -> TracerProvider:
    """A provider that sends by ``exporter``, or by the one that the settings describe.

    Sampler and limits the SDK reads from the environment.
    """
    provider = TracerProvider(
        resource=_resource(service),
        id_generator=_WantedIds(),
        # It would block the end of the process for half a minute.
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            Discreet(exporter or otlp_exporter(settings)),
            max_queue_size=settings.batch_queue,
            schedule_delay_millis=settings.batch_delay_ms,
            max_export_batch_size=settings.batch_size,
        )
    )
    return provider


class _WantedIds(RandomIdGenerator):
    """Makes the trace of a request with ``X-Trace-ID`` the trace of that id.

    Better than a made-up parent: the root span is a root, and the sampler decides as for any other.
    """

    def generate_trace_id(self) -> int:
        wanted = trace_id_wanted.get()
        return int(wanted, 16) if wanted else super().generate_trace_id()

    def is_trace_id_random(self) -> bool:
        """Whether samplers may rely on its randomness (W3C trace context, level 2)."""
        return trace_id_wanted.get() is None


def _resource(service: str | None) -> Resource:
    """Who sends the spans; the environment (``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``) may say more."""
    defaults = Resource.create(
        {
            SERVICE_NAME: _PRODUCT,
            SERVICE_VERSION: version(_PRODUCT),
            SERVICE_INSTANCE_ID: str(uuid.uuid4()),  # of this worker; not every SDK makes one
        }
    )
    resource = defaults.merge(OTELResourceDetector().detect())
    return resource if service is None else resource.merge(Resource({SERVICE_NAME: service}))
