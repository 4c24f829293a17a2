"""What can be wrong between a gateway and its collector is found and told apart, over both protocols."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.sdk.trace.export import SpanExporter

from gateway.devstack.ports import PortReservation
from tests.integration.smoke.conftest import CREDENTIALS, Ended, Smoke
from tests.support.smoke_scripted_gateway import Script, ScriptedGateway
from tests.support.smoke_spans import ScriptedSpans, SpanScript, Told

PROTOCOLS = ("http/protobuf", "grpc")
CredentialedSpan = Callable[[Told], Told | None]


def exporter(protocol: str, address: str) -> SpanExporter:
    if protocol == "grpc":
        return GrpcExporter(f"http://{address}", insecure=True, timeout=1)
    return HttpExporter(f"http://{address}/v1/traces", timeout=1)


@pytest.fixture
def address() -> Iterator[str]:
    """Where the checks listen and the gateway sends."""
    with PortReservation() as reserved:
        yield reserved.address


def run(
    smoke: Smoke,
    address: str,
    script: SpanScript,
    *,
    sends: str = "http/protobuf",
    listens: str = "http/protobuf",
    more: tuple[str, ...] = (),
) -> Ended:
    with (
        ScriptedSpans(exporter(sends, address), script) as spans,
        ScriptedGateway(Script(), spans) as gateway,
    ):
        return smoke(
            "--url", gateway.url, "--otlp-listen", address, "--otlp-protocol", listens, *more
        )


def only(name: str, change: CredentialedSpan) -> SpanScript:
    """One kind of span is changed; ``POST`` means the server span."""
    return SpanScript(change=lambda told: change(told) if told.name.startswith(name) else told)


def lacking(attribute: str) -> CredentialedSpan:
    def change(told: Told) -> Told:
        return replace(
            told, attributes={k: v for k, v in told.attributes.items() if k != attribute}
        )

    return change


def having(attribute: str, value: object) -> CredentialedSpan:
    return lambda told: replace(told, attributes={**told.attributes, attribute: value})


def nothing(_: Told) -> None:
    return None


def detached(told: Told) -> Told:
    return replace(told, detached=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_traces_as_in_the_contract_pass(protocol: str, address: str, smoke: Smoke) -> None:
    ended = run(
        smoke, address, SpanScript(), sends=protocol, listens=protocol, more=("--round-trip",)
    )
    assert (ended.code, ended.failures) == (0, []), ended.document
    assert "3 of 3 traces" in ended.message("traces")


def test_a_trace_that_is_lost_while_the_collector_comes_back_is_asked_for_again_and_told(
    address: str, smoke: Smoke
) -> None:
    """A decide and its repeat are two requests of one route: the trace that is looked for is the first."""
    ended = run(smoke, address, SpanScript(loses_first=True), more=("--round-trip",))
    assert (ended.code, ended.failures) == (0, []), ended.document
    assert "nothing came of the first trace of the usage event" in ended.message("traces")


#: what is wrong → the spans, the exit code, the failure, what the message names
WRONG: dict[str, tuple[SpanScript, int, str, tuple[str, ...]]] = {
    "a trace of its own": (SpanScript(follows=False), 43, "trace_missing", ("the usage event",)),
    "no server span": (only("POST", nothing), 44, "span_missing", ("server span",)),
    "no publish": (only("nats.publish", nothing), 44, "span_missing", ("nats.publish",)),
    "no request": (only("nats.request", nothing), 44, "span_missing", ("nats.request", "decide")),
    "no consume": (only("nats.consume", nothing), 44, "span_missing", ("nats.consume",)),
    "a server span without tenant": (
        only("POST", lacking("tenant_id")), 45, "span_attributes", ("tenant_id",)
    ),
    "a server span without phase": (
        only("POST", lacking("cp_phase")), 45, "span_attributes", ("cp_phase",)
    ),
    "a server span without route": (
        only("POST", lacking("http.route")), 45, "span_attributes", ("http.route",)
    ),
    "a publish without subject": (
        only("nats.publish", lacking("subject")), 45, "span_attributes", ("nats.publish", "subject")
    ),
    "a request without phase": (
        only("nats.request", lacking("cp_phase")), 45, "span_attributes", ("nats.request",)
    ),
    "a consume without durable": (
        only("nats.consume", lacking("durable")), 45, "span_attributes", ("durable",)
    ),
    "a consume without redeliveries": (
        only("nats.consume", lacking("redelivery_count")),
        45, "span_attributes", ("redelivery_count",),
    ),
    "another tenant": (
        only("nats.publish", having("tenant_id", "another")), 45, "span_attributes", ("'another'",)
    ),
    "another phase": (
        only("POST", having("cp_phase", "unknown")), 45, "span_attributes", ("'unknown'", "'cp2'")
    ),
    "no attributes at all": (
        only("", lambda told: replace(told, attributes={})), 45, "span_attributes", ("tenant_id", "cp_phase")
    ),
    "a publish beside its request": (
        only("nats.publish", detached), 46, "span_parent", ("nats.publish",)
    ),
    "a credential in a span": (
        only("POST", having("http.request.header.authorization", "Bearer key-of-one-tenant")),
        47, "span_leaks", ("POST",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_one_thing_wrong_with_the_spans_is_told_by_its_exit_code(
    wrong: str, address: str, smoke: Smoke
) -> None:
    script, code, failure, named = WRONG[wrong]
    ended = run(smoke, address, script, more=("--round-trip",))
    assert (ended.code, ended.failures) == (code, [failure]), ended.document
    for name in named:
        assert name in ended.message("traces")
    for credential in CREDENTIALS.values():
        assert credential not in str(ended.document)


@pytest.mark.parametrize(("sends", "listens"), [PROTOCOLS, PROTOCOLS[::-1]])
def test_the_other_protocol_is_told(sends: str, listens: str, address: str, smoke: Smoke) -> None:
    ended = run(smoke, address, SpanScript(), sends=sends, listens=listens)
    assert (ended.code, ended.failures) == (42, ["traces_wrong_protocol"])


def test_another_path_is_told_by_its_name(address: str, smoke: Smoke) -> None:
    elsewhere = HttpExporter(f"http://{address}/", timeout=1)
    with (
        ScriptedSpans(elsewhere, SpanScript()) as spans,
        ScriptedGateway(Script(), spans) as gateway,
    ):
        ended = smoke("--url", gateway.url, "--otlp-listen", address)
    assert (ended.code, ended.failures) == (42, ["traces_wrong_protocol"])
    assert "/v1/traces" in ended.message("traces")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gateway_that_sends_nothing_is_told(protocol: str, address: str, smoke: Smoke) -> None:
    with ScriptedGateway(Script()) as gateway:
        ended = smoke("--url", gateway.url, "--otlp-listen", address, "--otlp-protocol", protocol)
    assert (ended.code, ended.failures) == (41, ["traces_none"])
    assert address in ended.message("traces")


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_address_that_is_taken_is_told_before_anything_is_sent(
    protocol: str, smoke: Smoke
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, ScriptedGateway(Script()) as gateway:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        ended = smoke("--url", gateway.url, "--otlp-listen", address, "--otlp-protocol", protocol)
    assert (ended.code, ended.failures) == (40, ["otlp_address"])
    assert gateway.events == {}


@pytest.mark.parametrize(
    "address", ["127.0.0.1:99999", "203.0.113.7:4318", "no-such-host.invalid:1"]
)
def test_an_address_that_cannot_be_had_is_told(address: str, smoke: Smoke) -> None:
    ended = smoke("--url", "http://127.0.0.1:1", "--otlp-listen", address)
    assert (ended.code, ended.failures) == (40, ["otlp_address"])
