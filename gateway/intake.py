"""Intake: the service that takes workers' results in, one in each worker, all on one durable consumer."""

from __future__ import annotations

import time

from bridge import Bus, ConsumerSpec, Delivery, Reject
from gateway.operations import dead_letters, results
from gateway.operations.deliveries import headers_of, ids_of
from gateway.settings import Settings
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.declarations import TenantLabel
from gateway.telemetry.tracing.nats_spans import name_tenant

DURABLE = "beamline-gateway-results"


def consumer_spec(settings: Settings) -> ConsumerSpec:
    """The consumer of ``CAF_RESULT_SUBJECT``."""
    return ConsumerSpec(
        subject=settings.result_subject,
        durable=DURABLE,
        ack_wait_ms=settings.nats_ack_wait_ms,
        max_deliver=settings.nats_max_deliver,
        backoff_ms=settings.nats_backoff_ms,
    )


class ResultIntake:
    """A service of the bridge: consumes until the connection is lost, and again after it."""

    def __init__(self, settings: Settings) -> None:
        self._spec = consumer_spec(settings)
        self._tenant_label = TenantLabel(settings.metrics_tenants)
        self._rules = results.IntakeRules(
            subject_allowlist=settings.taken_in,
            tenant_allowlist=frozenset(settings.tenant_allowlist),
            usage_subject=settings.usage_subject,
            usage_window_ms=settings.usage_dedupe_window_ms,
            meter=settings.publish_usage,
        )

    async def __call__(self, bus: Bus) -> None:
        """Run until cancelled."""

        async def handle(delivery: Delivery) -> None:
            await self._handle(bus, delivery)

        async def bury(delivery: Delivery, why: Reject) -> None:
            await dead_letters.bury(bus, delivery, why)
            metrics.DEAD_LETTERS.labels(self._spec.subject, why.code).inc()

        await bus.consume(self._spec, handle, on_dead=bury)

    async def _handle(self, bus: Bus, delivery: Delivery) -> None:
        begun = time.monotonic()
        tenant_id = headers_of(delivery).get("tenant_id")
        outcome = "failed"
        try:
            tenant_id = await results.take_in(bus, delivery, self._rules, self._metered)
            outcome = "ok"
        except Reject:
            outcome = "rejected"
            tenant_id = ids_of(delivery).get("tenant_id")
            raise
        finally:
            redelivered = "true" if delivery.num_delivered > 1 else "false"
            if tenant_id is not None and outcome != "failed":  # looked at, not as it came
                name_tenant(tenant_id)
            subject, tenant = self._spec.subject, self._tenant_label(tenant_id)
            metrics.CONSUMPTION.labels(subject, tenant, outcome, redelivered).inc()
            metrics.CONSUMPTION_LATENCY.labels(subject, tenant).observe(time.monotonic() - begun)

    def _metered(self, tenant_id: str, first: bool) -> None:
        result = "emitted" if first else "duplicate"
        metrics.USAGE_EMITTED.labels(self._tenant_label(tenant_id), "result", result).inc()
