"""NatsTelemetry: the observer of the bridge; each message is a span and a count."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractContextManager
from types import TracebackType
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

    def sending(
        self, operation: Literal["request", "publish"], subject: str, headers: dict[str, str]
    ) -> AbstractContextManager[None]:
        """See `bridge.Observer`."""
        spanned = self._spans.sending(operation, subject, headers)
        return _Counted(operation, self._subject_label(subject), spanned)

    def consuming(self, durable: str, delivery: Delivery) -> AbstractContextManager[Tell]:
        """See `bridge.Observer`."""
        return self._spans.consuming(durable, delivery)


class _Counted(AbstractContextManager[None]):
    """Counts how a message's way ended. A class: what `contextlib.contextmanager` makes costs each message more."""

    __slots__ = ("_begun", "_label", "_operation", "_spanned")

    def __init__(
        self,
        operation: Literal["request", "publish"],
        label: str,
        spanned: AbstractContextManager[None],
    ) -> None:
        self._operation = operation
        self._label = label
        self._spanned = spanned
        self._begun = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        counter = metrics.NATS_PUBLISHES if self._operation == "publish" else metrics.NATS_REQUESTS
        if error is None:
            counter.labels(self._label, "ok").inc()
            seconds = time.monotonic() - self._begun
            metrics.NATS_LATENCY.labels(self._operation, self._label).observe(seconds)
        elif isinstance(error, BridgeError | asyncio.CancelledError):
            counter.labels(self._label, outcome_of(error)).inc()
        self._spanned.__exit__(kind, error, trace)
