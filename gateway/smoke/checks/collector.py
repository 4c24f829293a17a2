"""The collector that this environment names takes a trace: one span of the checks' own, sent as a gateway would.

For where the gateway's traces go to a real collector and cannot be looked at. A missing endpoint, a refused
connection, another protocol, silence and a refusal are told apart, which an exporter does not do.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from contextlib import closing
from typing import Final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from gateway.smoke.client import one_line
from gateway.smoke.collector_address import CollectorAddress
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.session import Root, Session

_SERVICE: Final = "beamline-gateway-smoke"
_ANSWERED_OTHERWISE: Final = (http.client.BadStatusLine, ConnectionResetError, BrokenPipeError)


def check(session: Session) -> str:
    """Sends it, and says under which id to look for it."""
    address, seconds = CollectorAddress.of(session.environ), session.gateway.timeout_seconds
    root = Root()
    send = _over_grpc if address.protocol == "grpc" else _over_http
    try:
        _connect(address, seconds)
        send(address, _export(root), seconds)
    except TimeoutError:
        raise Failed(
            Failure.COLLECTOR_SILENT, f"{address} does not answer within {seconds:g} s"
        ) from None
    except ssl.SSLCertVerificationError as error:
        raise Failed(Failure.COLLECTOR_ERROR, f"{address}: TLS: {error.verify_message}") from None
    except (*_ANSWERED_OTHERWISE, ssl.SSLError):
        raise _other_protocol(address) from None
    except (OSError, http.client.HTTPException) as error:
        raise Failed(Failure.COLLECTOR_ERROR, one_line(f"{address}: {error!r}")) from None
    return f"the collector at {address} took the trace {root.trace_id} of {_SERVICE}"


def _connect(address: CollectorAddress, seconds: float) -> None:
    """Look who is there: gRPC calls everything "unavailable"."""
    try:
        connection = socket.create_connection((address.host, address.port), timeout=seconds)
    except TimeoutError:
        raise
    except OSError as error:
        raise Failed(Failure.COLLECTOR_REFUSED, f"{address}: {error.strerror or error}") from None
    with connection:
        if address.tls:
            address.trust().wrap_socket(connection, server_hostname=address.host).close()


def _over_http(
    address: CollectorAddress, export: ExportTraceServiceRequest, seconds: float
) -> None:
    headers = {**address.headers, "Content-Type": "application/x-protobuf"}
    with closing(_connection(address, seconds)) as connection:
        connection.request("POST", address.url.path or "/", export.SerializeToString(), headers)
        response = connection.getresponse()
        body = response.read(1000)
    if response.status != http.client.OK:
        answered = one_line(f"{response.status} {body.decode(errors='replace')}")
        raise Failed(Failure.COLLECTOR_ERROR, f"{address} answers {answered}")


def _connection(address: CollectorAddress, seconds: float) -> http.client.HTTPConnection:
    if not address.tls:
        return http.client.HTTPConnection(address.host, address.port, timeout=seconds)
    return http.client.HTTPSConnection(
        address.host, address.port, timeout=seconds, context=address.trust()
    )


def _over_grpc(
    address: CollectorAddress, export: ExportTraceServiceRequest, seconds: float
) -> None:
    metadata = [(name.lower(), value) for name, value in address.headers.items()]
    with _channel(address) as channel:
        try:
            stub = TraceServiceStub(channel)  # type: ignore[no-untyped-call]
            stub.Export(export, timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise _grpc_failed(address, error) from None


def _grpc_failed(address: CollectorAddress, error: grpc.RpcError) -> Exception:
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return TimeoutError()
    # Somebody took the connection a moment ago: what is not available there is this protocol.
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return _other_protocol(address)
    answered = one_line(f"{error.code().name}: {error.details()}")
    return Failed(Failure.COLLECTOR_ERROR, f"{address} answers {answered}")


def _channel(address: CollectorAddress) -> grpc.Channel:
    target = f"{address.host}:{address.port}"
    if not address.tls:
        return grpc.insecure_channel(target)
    files = (address.ca_file, address.client_key, address.client_certificate)
    return grpc.secure_channel(
        target,
        grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files)),
    )


def _export(root: Root) -> ExportTraceServiceRequest:
    """One span without parent, of a service of its own."""
    now = time.time_ns()
    span = Span(
        trace_id=bytes.fromhex(root.trace_id),
        span_id=bytes.fromhex(root.span_id),
        name="smoke",
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=now,
        end_time_unix_nano=now,
    )
    service = KeyValue(key="service.name", value=AnyValue(string_value=_SERVICE))
    return ExportTraceServiceRequest(
        resource_spans=[
            ResourceSpans(
                resource=Resource(attributes=[service]), scope_spans=[ScopeSpans(spans=[span])]
            )
        ]
    )


def _other_protocol(address: CollectorAddress) -> Failed:
    return Failed(Failure.COLLECTOR_WRONG_PROTOCOL, f"{address} does not speak {address.protocol}")
