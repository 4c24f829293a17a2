"""An OTLP receiver for traces: the collector that the smoke checks and the tests bring with them.

It speaks the real protobuf services on a port of its own, OTLP over HTTP (``POST /v1/traces``) or over gRPC, and keeps
every span that was sent, as plain objects::

    with OtlpReceiver("http") as receiver:
        start_a_gateway(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
        span = receiver.wait_for(lambda spans: [s for s in spans if s.kind == "server"], timeout=10)[0]

It keeps all it gets until `clear` is called: it is for checks, not for production.
"""

from __future__ import annotations

import gzip
import http.server
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Final, Literal, Self, TypeVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from gateway.telemetry.tracing.otlp.grpc_server import GrpcServer
from gateway.telemetry.tracing.otlp.spans import Span, read_export

T = TypeVar("T")
Protocol = Literal["http", "grpc"]

_PATH: Final = "/v1/traces"
_PROTOBUF: Final = "application/x-protobuf"
_LARGEST_BYTES: Final = 64 * 1024 * 1024
_SOCKET_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0


class OtlpReceiver:
    """See the module's docstring. ``bind`` is ``host:port``; port 0 takes a free one.

    The port is taken in the constructor, so that `endpoint` is known before anything answers there; `start` (or
    ``with``) serves it, `close` ends it, more than once if you like. Raises OSError if the port cannot be had.
    """

    def __init__(self, protocol: Protocol = "http", *, bind: str = "127.0.0.1:0") -> None:
        self.protocol = protocol
        self._spans: list[Span] = []
        self._complaints: list[str] = []
        self._news = threading.Condition()
        self._server: _HttpServer | GrpcServer = (
            _HttpServer(bind, self)
            if protocol == "http"
            else GrpcServer(bind, take=self.take, complain=self.complain)
        )
        host = bind.rpartition(":")[0]
        self.address = f"{host}:{self._server.port}"
        self.endpoint = f"http://{self.address}"
        """What ``OTEL_EXPORTER_OTLP_ENDPOINT`` must be; the HTTP exporter appends ``/v1/traces`` itself."""

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._server.start()

    def close(self) -> None:
        """Stop serving and give the port back; the spans stay readable."""
        self._server.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def spans(self) -> list[Span]:
        """All spans so far, in the order in which they came."""
        with self._news:
            return list(self._spans)

    def complaints(self) -> list[str]:
        """What came that was no OTLP trace of this protocol, a sentence each: another protocol, another path."""
        with self._news:
            return list(self._complaints)

    def clear(self) -> None:
        """Forget what came so far."""
        with self._news:
            self._spans.clear()
            self._complaints.clear()

    def wait_for(self, predicate: Callable[[Sequence[Span]], T], timeout: float) -> T:
        """The first true result of ``predicate``, which is asked about all spans each time some have come.

        Raises TimeoutError, which names the spans that are there, after ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        with self._news:
            while not (found := predicate(tuple(self._spans))):
                remaining = end - time.monotonic()
                if remaining <= 0:
                    there = ", ".join(sorted({f"{s.service}: {s.name}" for s in self._spans}))
                    raise TimeoutError(
                        f"not among the {len(self._spans)} spans of {timeout:g} s ({there or 'none'})"
                        + "".join(f"; {complaint}" for complaint in self._complaints)
                    )
                self._news.wait(remaining)
        return found

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep the spans of an export. Called by the servers."""
        spans = read_export(request)
        with self._news:
            self._spans.extend(spans)
            self._news.notify_all()

    def complain(self, sentence: str) -> None:
        """Note something that was not understood, once. Called by the servers."""
        with self._news:
            if sentence not in self._complaints:
                self._complaints.append(sentence)
            self._news.notify_all()


# -- over HTTP -----------------------------------------------------------------------------------------


class _HttpServer(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, bind: str, receiver: OtlpReceiver) -> None:
        host, _, port = bind.rpartition(":")
        super().__init__((host, int(port)), _HttpHandler)
        self.receiver = receiver
        self.port: int = self.server_address[1]
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="otlp-http", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join(_STOP_SECONDS)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.receiver.complain("a connection ended in the middle of a request")


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    server: _HttpServer
    raw_requestline: bytes
    # HTTP/1.0: every answer ends its connection, so that a receiver that stops leaves no half-open one behind.
    protocol_version = "HTTP/1.0"
    timeout = _SOCKET_SECONDS

    def parse_request(self) -> bool:
        """As inherited, but a client that speaks gRPC is told apart by its first line."""
        if self.raw_requestline.startswith(b"PRI * HTTP/2"):
            self.server.receiver.complain(
                "a client speaks gRPC (HTTP/2) to the port of OTLP over HTTP"
            )
            self.close_connection = True
            return False
        return super().parse_request()

    def do_POST(self) -> None:
        """Take an export."""
        content_type = self.headers.get_content_type()
        if self.path != _PATH:
            self._refuse(404, f"a client posts to {self.path}, not {_PATH}")
        elif content_type != _PROTOBUF:
            self._refuse(415, f"a client posts {content_type}, not {_PROTOBUF}")
        else:
            try:
                request = ExportTraceServiceRequest.FromString(self._body())
            except (DecodeError, ValueError, OSError, EOFError, zlib.error) as error:
                self._refuse(400, f"a client posts what is no export of traces: {error}")
                return
            self.server.receiver.take(request)
            self._answer(200, ExportTraceServiceResponse().SerializeToString())

    def _body(self) -> bytes:
        length = int(self.headers.get("Content-Length", ""))
        if not 0 <= length <= _LARGEST_BYTES:
            raise ValueError(f"{length} bytes")
        body = self.rfile.read(length)
        match self.headers.get("Content-Encoding", "identity"):
            case "identity":
                return body
            case "gzip":
                return gzip.decompress(body)
            case "deflate":
                return zlib.decompress(body)
            case other:
                raise ValueError(f"encoded as {other}")

    def _refuse(self, status: int, sentence: str) -> None:
        self.server.receiver.complain(sentence)
        self._answer(status, b"")

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", _PROTOBUF)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is worth knowing is among the complaints."""
