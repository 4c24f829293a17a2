"""A real collector's troubles are told apart, where the gateway's own traces cannot be looked at."""

from __future__ import annotations

import http.server
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from gateway.devstack.ports import PortReservation
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from tests.integration.smoke.conftest import Ended, Smoke
from tests.support.certificates import Certificates, make_certificates
from tests.support.smoke_scripted_gateway import Script, ScriptedGateway

PROTOCOLS = ("http/protobuf", "grpc")
ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


@contextmanager
def http_collector(
    status: int, body: bytes = b"", *, certificates: Certificates | None = None
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answers every POST so; its URL, and the path and Authorization of what it was asked."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers.get("Authorization", "")))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if certificates is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificates.server, certificates.server_key)
            server.socket = context.wrap_socket(server.socket, server_side=True)
            # A client that does not believe it is no error of this server.
            server.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


@contextmanager
def grpc_collector(certificates: Certificates) -> Iterator[str]:
    """Takes every trace over gRPC and TLS; its address."""

    class Service(TraceServiceServicer):
        def Export(
            self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
        ) -> ExportTraceServiceResponse:
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_TraceServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    pair = (certificates.server_key.read_bytes(), certificates.server.read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def tls_collector(protocol: str, certificates: Certificates) -> Iterator[str]:
    """One that takes every trace over TLS; its address."""
    if protocol == "grpc":
        with grpc_collector(certificates) as address:
            yield address
    else:
        with http_collector(200, certificates=certificates) as (url, _):
            yield url.removeprefix("http://")


def asked_of(smoke: Smoke, *arguments: str, **environment: str) -> Ended:
    """The collector's part of a run: there is no gateway, so nothing else can be checked."""
    with PortReservation() as nobody:
        return smoke("--url", f"http://127.0.0.1:{nobody.port}", *arguments, **environment)


def found(ended: Ended) -> list[str]:
    """What was found beside the missing gateway."""
    assert ended.failures[0] == "gateway_unreachable"
    return ended.failures[1:]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_takes_a_trace_passes_and_the_trace_can_be_looked_up(
    protocol: str, smoke: Smoke
) -> None:
    with (
        OtlpReceiver("grpc" if protocol == "grpc" else "http") as receiver,
        ScriptedGateway(Script()) as gateway,
    ):
        ended = smoke("--url", gateway.url, **{ENDPOINT: receiver.endpoint, PROTOCOL: protocol})
        [span] = receiver.spans()
    assert (ended.code, ended.failures) == (0, [])
    assert span.service == "beamline-gateway-smoke"
    assert span.trace_id in ended.message("collector")
    assert ended.outcome("traces") == "not_checked"


@pytest.mark.parametrize("environment", [{}, {ENDPOINT: ""}, {"OTEL_SDK_DISABLED": "true"}])
def test_a_missing_endpoint_is_told(environment: dict[str, str], smoke: Smoke) -> None:
    with ScriptedGateway(Script()) as gateway:
        ended = smoke("--url", gateway.url, **environment)
    assert (ended.code, ended.failures) == (50, ["collector_missing"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refused_connection_is_told(protocol: str, smoke: Smoke) -> None:
    with PortReservation() as nobody:
        ended = asked_of(smoke, **{ENDPOINT: f"http://{nobody.address}", PROTOCOL: protocol})
    assert found(ended) == ["collector_refused"]
    assert nobody.address in ended.message("collector")


@pytest.mark.parametrize(("there", "asked"), [("http", "grpc"), ("grpc", "http/protobuf")])
def test_a_collector_of_the_other_protocol_is_told(there: str, asked: str, smoke: Smoke) -> None:
    if there == "http":
        with http_collector(200) as (url, _):
            ended = asked_of(smoke, **{ENDPOINT: url, PROTOCOL: asked})
    else:
        server = grpc.server(futures.ThreadPoolExecutor(1))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        ended = asked_of(smoke, **{ENDPOINT: f"http://127.0.0.1:{port}", PROTOCOL: asked})
        server.stop(None).wait()
    assert found(ended) == ["collector_wrong_protocol"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_to_a_collector_without_it_is_another_protocol(protocol: str, smoke: Smoke) -> None:
    with http_collector(200) as (url, _):
        tls = url.replace("http://", "https://")
        ended = asked_of(smoke, **{ENDPOINT: tls, PROTOCOL: protocol})
    assert found(ended) == ["collector_wrong_protocol"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_is_believed_only_if_the_variables_name_its_authority(
    protocol: str, tmp_path: Path, smoke: Smoke
) -> None:
    certificates = make_certificates(tmp_path)
    with tls_collector(protocol, certificates) as address:
        environment = {ENDPOINT: f"https://{address}", PROTOCOL: protocol}
        unknown = asked_of(smoke, **environment)
        ca = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificates.authority)}
        known = asked_of(smoke, **environment, **ca)
    assert found(unknown) == ["collector_error"]
    assert "TLS: " in unknown.message("collector")
    assert found(known) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_collector_that_never_answers_is_told_within_a_bound(protocol: str, smoke: Smoke) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        ended = asked_of(smoke, "--timeout", "0.5", **{ENDPOINT: url, PROTOCOL: protocol})
    assert found(ended) == ["collector_silent"]


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_a_refusal_over_http_is_told_with_its_status(status: int, smoke: Smoke) -> None:
    with http_collector(status, b"no pipeline\x1b[31m\n") as (url, _):
        ended = asked_of(smoke, **{ENDPOINT: url})
    assert found(ended) == ["collector_error"]
    assert f"{status} no pipeline" in ended.message("collector")
    assert ended.message("collector").isprintable()


def test_a_refusal_over_grpc_is_told_with_its_code(smoke: Smoke) -> None:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    environment = {ENDPOINT: f"http://127.0.0.1:{port}", PROTOCOL: "grpc"}
    ended = asked_of(smoke, **environment)
    server.stop(None).wait()
    assert found(ended) == ["collector_error"]
    assert "UNIMPLEMENTED" in ended.message("collector")


def test_the_variables_of_traces_alone_win_and_their_endpoint_is_used_as_it_is(
    smoke: Smoke,
) -> None:
    with http_collector(200) as (url, asked):
        ended = asked_of(
            smoke,
            **{
                ENDPOINT: "http://127.0.0.1:1",
                PROTOCOL: "grpc",
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/custom",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20collector-canary",
            },
        )
    assert found(ended) == []
    assert asked == [("/custom", "Bearer collector-canary")]
    assert "canary" not in str(ended.document)


def test_a_wrong_variable_is_named_and_its_secret_is_not_shown(smoke: Smoke) -> None:
    ended = asked_of(
        smoke,
        **{
            ENDPOINT: "http://user:canary@127.0.0.1:1",
            PROTOCOL: "carrier-pigeon",
            "OTEL_EXPORTER_OTLP_HEADERS": "canary",
        },
    )
    assert found(ended) == ["collector_settings"]
    assert PROTOCOL in ended.message("collector")
    assert "canary" not in str(ended.document)
