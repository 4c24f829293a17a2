"""OpenTelemetry's own variables keep their meaning, and a wrong one stops the start."""

from __future__ import annotations

import uuid

import pytest

from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from tests.support.documents import ASSIGNMENTS, assignment_body
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_tap import NatsTap
from tests.support.stacks import Running, running
from tests.support.traces import sending_to, traced
from tests.support.waiting import GENEROUS_SECONDS

ASSIGN = "caf.exec.assign.v1"
EVERY_VARIABLE = """
    OTEL_ATTRIBUTE_COUNT_LIMIT OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT OTEL_BSP_EXPORT_TIMEOUT
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE OTEL_BSP_MAX_QUEUE_SIZE OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT
    OTEL_EXPORTER_OTLP_CERTIFICATE OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE OTEL_EXPORTER_OTLP_CLIENT_KEY
    OTEL_EXPORTER_OTLP_COMPRESSION OTEL_EXPORTER_OTLP_HEADERS OTEL_EXPORTER_OTLP_TIMEOUT
    OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE OTEL_EXPORTER_OTLP_TRACES_COMPRESSION
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_TRACES_HEADERS OTEL_EXPORTER_OTLP_TRACES_INSECURE
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL OTEL_EXPORTER_OTLP_TRACES_TIMEOUT OTEL_LINK_ATTRIBUTE_COUNT_LIMIT
    OTEL_PROPAGATORS OTEL_RESOURCE_ATTRIBUTES OTEL_SDK_DISABLED OTEL_SERVICE_NAME
    OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT OTEL_SPAN_EVENT_COUNT_LIMIT
    OTEL_SPAN_LINK_COUNT_LIMIT OTEL_TRACES_EXPORTER OTEL_TRACES_SAMPLER OTEL_TRACES_SAMPLER_ARG
""".split()
SAMPLED = 0x01
WORKER = {"WEB_CONCURRENCY": "1"}


def arrives(started: Running, receiver: OtlpReceiver) -> None:
    """A request's trace comes to the receiver."""
    with started.gateway.client() as client:
        trace_id = client.post(ASSIGNMENTS, assignment_body()).header("X-Trace-ID")
    receiver.wait_for(
        lambda spans: any(span.trace_id == trace_id for span in spans), GENEROUS_SECONDS
    )


@pytest.mark.parametrize(
    ("protocol", "variables"),
    [
        pytest.param(
            "http",
            {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{endpoint}/v1/traces"},
            id="endpoint for traces alone",
        ),
        pytest.param(
            "grpc",
            {
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{endpoint}",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            id="endpoint and protocol for traces alone",
        ),
        pytest.param(
            "http",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "{endpoint}/v1/traces",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            id="those for traces win",
        ),
        pytest.param(
            "http",
            {"OTLP_ENDPOINT": "{endpoint}/", "OTEL_EXPORTER_OTLP_ENDPOINT": ""},
            id="the alias",
        ),
        pytest.param(
            "http",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "{endpoint}", "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"},
            id="gzip",
        ),
        pytest.param(
            "grpc",
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": "{endpoint}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
                "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20abc,x-tenant=1",
            },
            id="gzip and headers over grpc",
        ),
        pytest.param(
            "http",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "{endpoint}", **dict.fromkeys(EVERY_VARIABLE, "")},
            id="everything else empty",
        ),
    ],
)
def test_traces_are_sent_where_and_how_the_variables_say(
    protocol: str, variables: dict[str, str]
) -> None:
    with OtlpReceiver("grpc" if protocol == "grpc" else "http") as receiver:
        named = {
            name: value.format(endpoint=receiver.endpoint) for name, value in variables.items()
        }
        environment = {**WORKER, "OTEL_BSP_SCHEDULE_DELAY": "50", **named}
        with running("variables", environment) as started:
            arrives(started, receiver)
        assert not receiver.complaints()


@pytest.mark.parametrize(
    ("variables", "service"),
    [
        ({"OTEL_SERVICE_NAME": "edge"}, "edge"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=from-attributes"}, "from-attributes"),
        (
            {
                "OTEL_SERVICE_NAME": "edge",
                "OTEL_RESOURCE_ATTRIBUTES": "service.name=no,deployment.environment.name=a%20b",
            },
            "edge",
        ),
    ],
)
def test_who_sends_is_told_as_the_environment_says(variables: dict[str, str], service: str) -> None:
    with traced("service", {**WORKER, **variables}) as stack, stack.gateway.client() as client:
        trace_id = client.post(ASSIGNMENTS, assignment_body()).header("X-Trace-ID")
        found = stack.receiver.wait_for(
            lambda spans: [span for span in spans if span.trace_id == trace_id], GENEROUS_SECONDS
        )
    assert {span.service for span in found} == {service}
    if "deployment" in str(variables):
        assert found[0].resource["deployment.environment.name"] == "a b"


def test_workers_are_told_apart() -> None:
    with traced("instances") as stack:
        assert len({span.resource["service.instance.id"] for span in stack.settle()}) == 2


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
    ],
    ids=["disabled", "no exporter", "no endpoint", "sampler off", "ratio 0"],
)
def test_without_recording_messages_still_carry_the_callers_trace(
    variables: dict[str, str],
) -> None:
    caller = f"00-{uuid.uuid4().hex}-00f067aa0ba902b7-01"
    with OtlpReceiver() as receiver:
        environment = {**WORKER, **sending_to(receiver), **variables}
        with (
            running("unrecorded", environment) as started,
            NatsTap(started.nats.url, (ASSIGN,)) as tap,
            started.gateway.client() as client,
        ):
            client.post(ASSIGNMENTS, assignment_body(), {"traceparent": caller})
            own = client.post(ASSIGNMENTS, assignment_body()).header("X-Trace-ID")
            continued, begun = (m.headers["traceparent"] for m in tap.wait_for(2))
            if "SAMPLER" in str(variables):
                assert continued.split("-")[1] == caller.split("-")[1]
            else:
                # Passed on as it came: who records behind the gateway continues the caller's span.
                assert continued == caller
            assert begun.split("-")[1] == own
            assert not int(begun.split("-")[3], 16) & SAMPLED
            started.gateway.terminate()
            started.gateway.wait()
        assert not receiver.spans()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "gprc"),
        ("OTEL_PROPAGATORS", "tracecontext,b3"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "many"),
        ("OTEL_TRACES_SAMPLER_ARG", "1.5"),
    ],
)
def test_a_wrong_variable_stops_the_start_and_is_named(name: str, value: str) -> None:
    gateway = GatewayProcess("nats://127.0.0.1:9", environment={name: value})
    try:
        gateway.spawn()
        assert gateway.wait() == 2
        (line,) = gateway.output().splitlines()
        assert line.startswith(f"{name}: expected ")
    finally:
        gateway.close()
