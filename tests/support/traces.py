"""What tests of traces stand on: a stack whose every process sends its spans to a real OTLP receiver."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver, Protocol
from gateway.telemetry.tracing.otlp.spans import Span
from tests.integration.devstack.processes import ServiceProcess
from tests.support import capture
from tests.support.gateway_process import GatewayProcess
from tests.support.reference_router import ReferenceRouter
from tests.support.waiting import GENEROUS_SECONDS

GATEWAY: Final = "beamline-gateway"
ROUTER: Final = "reference-router"
WORKER: Final = "reference-worker"
OTLP_NAMES: Final[Mapping[Protocol, str]] = {"http": "http/protobuf", "grpc": "grpc"}


@dataclass(frozen=True)
class Traced:
    """A gateway, its NATS server, and the receiver of everybody's spans."""

    gateway: GatewayProcess
    nats: NatsServer
    receiver: OtlpReceiver

    def wait_for(
        self, trace_id: str, count: int = 1, /, name: str | None = None, **attributes: Any
    ) -> list[Span]:
        """The spans of a trace with this name and these attributes, once there are ``count``. In attributes' names a
        double underscore stands for a dot."""

        def enough(spans: Sequence[Span]) -> list[Span]:
            ours = [span for span in spans if span.trace_id == trace_id]
            found = find(ours, name, **attributes)
            return found if len(found) >= count else []

        return self.receiver.wait_for(enough, GENEROUS_SECONDS)

    def server_span(self, trace_id: str) -> Span:
        """The one span of the HTTP request in a trace."""
        return only(
            self.receiver.wait_for(lambda spans: _requests(spans, trace_id), GENEROUS_SECONDS)
        )

    def settle(self) -> list[Span]:
        """All spans, once those that every worker has finished until now are certainly here.

        Sends requests until each worker's span of one has arrived: an exporter sends its spans in their order.
        """
        reached: set[str] = set()
        wanted = len(self.gateway.workers())
        with self.gateway.client(headers={}) as client:
            for _ in range(200):
                trace_id = uuid.uuid4().hex
                client.get("/api/v1/settle", {"X-Trace-ID": trace_id, "Connection": "close"})
                span = self.server_span(trace_id)
                reached.add(str(span.resource["service.instance.id"]))
                if len(reached) == wanted:
                    return self.receiver.spans()
        raise AssertionError(f"only {len(reached)} of {wanted} workers answered 200 requests")


@contextlib.contextmanager
def traced(
    name: str,
    environment: Mapping[str, str | None] | None = None,
    *,
    protocol: Protocol = "http",
    router: bool = False,
    worker: bool = False,
) -> Iterator[Traced]:
    """Start NATS, a receiver and a gateway that sends to it, and the devstack's services where wanted."""
    with contextlib.ExitStack() as stack:
        # A test that closes it may listen there again.
        port = stack.enter_context(PortReservation())
        receiver = stack.enter_context(OtlpReceiver(protocol, bind=port.address))
        nats = stack.enter_context(NatsServer(name=name))
        sending = sending_to(receiver)
        if router:
            stack.enter_context(ReferenceRouter(nats, sending))
        gateway = stack.enter_context(
            GatewayProcess(nats.url, environment={**sending, **(environment or {})})
        )
        if worker:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="worker-")))
            stack.enter_context(ServiceProcess("worker", nats, folder, sending))
        yield Traced(gateway, nats, receiver)
        capture.saw_spans(receiver.spans())


def sending_to(receiver: OtlpReceiver) -> dict[str, str]:
    """The environment of a process that sends its spans there, soon after they end."""
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": OTLP_NAMES[receiver.protocol],
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


def find(spans: Sequence[Span], name: str | None = None, **attributes: Any) -> list[Span]:
    """Those with this name and these attributes (``__`` stands for a dot)."""
    wanted = {key.replace("__", "."): value for key, value in attributes.items()}
    return [
        span
        for span in spans
        if name in (None, span.name)
        and all(span.attributes.get(key) == value for key, value in wanted.items())
    ]


def children(spans: Sequence[Span], parent: Span, name: str | None = None) -> list[Span]:
    """The spans right below one."""
    return [
        span
        for span in find(spans, name)
        if span.parent_id == parent.span_id and span.trace_id == parent.trace_id
    ]


def only(spans: Sequence[Span]) -> Span:
    """The one span there is."""
    assert len(spans) == 1, spans
    return spans[0]


def _requests(spans: Sequence[Span], trace_id: str) -> list[Span]:
    return [
        span
        for span in spans
        if (span.trace_id, span.kind, span.service) == (trace_id, "server", GATEWAY)
    ]
