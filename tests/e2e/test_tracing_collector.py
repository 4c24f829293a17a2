"""A collector that is away, refuses, hangs or speaks something else costs spans: no request, no orderly end, no log."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest

from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver, Protocol
from tests.support.documents import ASSIGNMENTS, DECIDE, assignment_body, decide_body
from tests.support.gateway_process import GatewayProcess
from tests.support.load import at_once
from tests.support.scripted_router import ScriptedRouter
from tests.support.stacks import running
from tests.support.traces import OTLP_NAMES, sending_to, traced
from tests.support.troubled_collectors import away, hanging, refusing
from tests.support.waiting import GENEROUS_SECONDS, PATIENCE, wait_until

#: Draining (0.5 s), the bridge (3 s at most), the exporter (1.5 s at most), and gunicorn itself.
END_SECONDS = 5.0 * PATIENCE
AT_ONCE = 20
OUR_LINE = "gateway.telemetry.logging.otel_lines"


@contextlib.contextmanager
def speaking_http() -> Iterator[str]:
    """It takes OTLP over HTTP only."""
    with OtlpReceiver("http") as receiver:
        yield receiver.endpoint
        assert any("gRPC" in complaint for complaint in receiver.complaints())


@contextlib.contextmanager
def speaking_grpc() -> Iterator[str]:
    """It takes OTLP over gRPC only."""
    with OtlpReceiver("grpc") as receiver:
        yield receiver.endpoint
        assert any("HTTP/1" in complaint for complaint in receiver.complaints())


@contextlib.contextmanager
def nowhere() -> Iterator[str]:
    """A name that no name server knows (RFC 6761)."""
    yield "http://collector.invalid:4318"


def complaints(gateway: GatewayProcess) -> list[str]:
    """The lines of the log that have to do with traces being exported."""
    words = ("opentelemetry", "otlp", "export", "urllib3", "grpc", OUR_LINE)
    lines = [line for line in gateway.output().splitlines() if "gateway.access" not in line]
    return [line for line in lines if any(word in line.lower() for word in words)]


@pytest.mark.parametrize(
    ("collector", "protocol"),
    [
        (away, "http"),
        (away, "grpc"),
        (hanging, "http"),
        (hanging, "grpc"),
        (refusing, "http"),
        (speaking_http, "grpc"),
        (speaking_grpc, "http"),
        (nowhere, "http"),
        (nowhere, "grpc"),
    ],
)
def test_requests_log_and_end_do_not_mind_the_collector(
    collector: Callable[[], AbstractContextManager[str]], protocol: Protocol
) -> None:
    with collector() as endpoint:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": OTLP_NAMES[protocol],
            # So many batches that each complaint would have its turn, and a queue that is full at once.
            "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_BSP_MAX_QUEUE_SIZE": "8",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "4",
            "GATEWAY_DRAIN_MS": "0",
            "GATEWAY_THREADS": "64",
        }
        with running("collector", environment) as started, ScriptedRouter(started.nats.url):
            gateway = started.gateway

            def ask(_: int) -> int:
                with gateway.client() as client:
                    return client.post(DECIDE, decide_body()).status

            for _ in range(3):
                assert set(at_once(range(AT_ONCE), ask)) == {200}
                wait_until(lambda: complaints(gateway), message="nothing was said about it")
            begun = time.monotonic()
            gateway.terminate()
            assert gateway.wait() == 0
            assert time.monotonic() - begun < END_SECONDS
            assert "Traceback" not in gateway.output()
            (line,) = complaints(gateway)
            said = json.loads(line)
            assert (said["level"], said["logger"]) == ("warning", OUR_LINE), line


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_traces_go_on_when_the_collector_is_back(protocol: Protocol) -> None:
    with traced("back", protocol=protocol) as stack, stack.gateway.client() as client:
        client.post(ASSIGNMENTS, assignment_body())
        stack.settle()
        stack.receiver.close()
        assert client.post(ASSIGNMENTS, assignment_body()).status == 202
        wait_until(lambda: complaints(stack.gateway))
        with OtlpReceiver(protocol, bind=stack.receiver.address) as back:

            def arrives() -> bool:
                trace_id = uuid.uuid4().hex
                client.post(ASSIGNMENTS, assignment_body(), {"X-Trace-ID": trace_id})
                with contextlib.suppress(TimeoutError):
                    return back.wait_for(
                        lambda spans: any(span.trace_id == trace_id for span in spans), 0.5
                    )
                return False

            wait_until(arrives, GENEROUS_SECONDS)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_no_trace_is_lost_when_the_collector_is_restarted(protocol: Protocol) -> None:
    """A worker finds the connection that it had dead when it sends the next batch, which is sent again."""
    alone = {"WEB_CONCURRENCY": "1"}
    with traced("restarted", alone, protocol=protocol) as stack, stack.gateway.client() as client:
        stack.receiver.close()
        for _ in range(4):
            with OtlpReceiver(protocol, bind=stack.receiver.address) as restarted:
                trace_id = uuid.uuid4().hex
                client.post(ASSIGNMENTS, assignment_body(), {"X-Trace-ID": trace_id})
                restarted.wait_for(
                    lambda spans, asked=trace_id: any(span.trace_id == asked for span in spans),  # type: ignore[misc]
                    GENEROUS_SECONDS,
                )


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_spans_of_the_last_requests_are_sent_before_the_end(protocol: Protocol) -> None:
    with OtlpReceiver(protocol) as receiver:
        # No batch is due before the end.
        environment = sending_to(receiver) | {"OTEL_BSP_SCHEDULE_DELAY": "600000"}
        with running("last-spans", environment) as started:
            with started.gateway.client() as client:
                traces = [
                    client.post(ASSIGNMENTS, assignment_body()).header("X-Trace-ID")
                    for _ in range(10)
                ]
            assert not receiver.spans()
            started.gateway.terminate()
            assert started.gateway.wait() == 0
        assert set(traces) <= {span.trace_id for span in receiver.spans()}
