"""NatsTelemetry: the observer of the bridge; each message is a span and a count."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Literal

from bridge import BridgeError, Delivery, Tell
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.labels import SubjectLabel
from gateway.telemetry.tracing.nats_spans import NatsSpans, outcome_of
from gateway.telemetry.tracing.tracer import Tracing


class NatsTelemetry:
    """See `bridge.Observer`."""

    def __init__(self, tracing: Tracing, subject_label: SubjectLabel) -> None:
        self._spans = NatsSpans(tracing)
        self._subject_label = subject_label

    @contextlib.contextmanager
    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> Iterator[None]:
        """See `bridge.Observer`."""
        counter = metrics.NATS_PUBLISHES if operation == "publish" else metrics.NATS_REQUESTS
        label = self._subject_label(subject)
        begun = time.monotonic()
        with self._spans.sending(operation, subject, headers):
            try:
                yield
            except (BridgeError, asyncio.CancelledError) as error:
                counter.labels(label, outcome_of(error)).inc()
                raise
            counter.labels(label, "ok").inc()
            metrics.NATS_LATENCY.labels(operation, label).observe(time.monotonic() - begun)

    def consuming(self, durable: str, delivery: Delivery) -> AbstractContextManager[Tell]:
        """See `bridge.Observer`."""
        return self._spans.consuming(durable, delivery)
