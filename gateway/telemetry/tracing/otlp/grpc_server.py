"""OTLP over gRPC, the server side, behind a front that tells a client of another protocol from none.

gRPC's own server closes the connection of a client that speaks HTTP/1 without a word to anybody. So the front takes
the connections, looks at their first bytes, and hands gRPC's on to a server on a port of its own.
"""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

_PREFACE: Final = b"PRI "
"""How every HTTP/2 connection begins (RFC 9113, section 3.4)."""
_NOT_GRPC: Final = (
    b"HTTP/1.1 415 Unsupported Media Type\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
)
_LARGEST_BYTES: Final = 64 * 1024 * 1024
_FIRST_BYTES_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0
_CHUNK_BYTES: Final = 64 * 1024


class GrpcServer:
    """Hands each export to ``take``, and a sentence about anything else to ``complain``.

    Raises OSError if the address cannot be had. ``port`` is the one that was taken.
    """

    def __init__(
        self,
        bind: str,
        *,
        take: Callable[[ExportTraceServiceRequest], None],
        complain: Callable[[str], None],
    ) -> None:
        self._inner = _Inner(take)
        try:
            self._front = _Front(bind, self._inner.port, complain)
        except OSError:
            self._inner.close()
            raise
        self.port: int = self._front.server_address[1]

    def start(self) -> None:
        """Serve, in threads of its own."""
        self._inner.start()
        self._front.start()

    def close(self) -> None:
        """Stop serving, more than once if you like."""
        self._front.close()
        self._inner.close()


class _Inner(TraceServiceServicer):
    def __init__(self, take: Callable[[ExportTraceServiceRequest], None]) -> None:
        self._take = take
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp-grpc")
        self._server = grpc.server(
            self._pool, options=[("grpc.max_receive_message_length", _LARGEST_BYTES)]
        )
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.stop(_STOP_SECONDS).wait()
        self._pool.shutdown()

    def Export(
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """The service's one method."""
        self._take(request)
        return ExportTraceServiceResponse()


class _Front(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, bind: str, inner_port: int, complain: Callable[[str], None]) -> None:
        host, _, port = bind.rpartition(":")
        super().__init__((host, int(port)), _Connection)
        self.inner_port = inner_port
        self.complain = complain
        self.open: set[socket.socket] = set()
        self._thread = threading.Thread(
            target=self.serve_forever, args=(0.05,), name="otlp-front", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join(_STOP_SECONDS)
        self.server_close()
        for connection in tuple(self.open):
            _end(connection)


class _Connection(socketserver.BaseRequestHandler):
    server: _Front
    request: socket.socket

    def handle(self) -> None:
        client, server = self.request, self.server
        server.open.add(client)
        try:
            client.settimeout(_FIRST_BYTES_SECONDS)
            # Without them there is nothing to say: a connection that was opened to look whether somebody listens.
            if not (first := client.recv(len(_PREFACE), socket.MSG_PEEK | socket.MSG_WAITALL)):
                return
            if first != _PREFACE:
                server.complain(
                    "a client speaks HTTP/1 (OTLP over HTTP?) to the port of OTLP over gRPC"
                )
                client.recv(_CHUNK_BYTES)  # unread, it would turn the answer into a reset
                client.sendall(_NOT_GRPC)
                return
            client.settimeout(None)
            with socket.create_connection(("127.0.0.1", server.inner_port)) as inner:
                threading.Thread(target=_pump, args=(inner, client), daemon=True).start()
                _pump(client, inner)
        except OSError:
            pass  # the client or this server went away in the middle; the client tells what it makes of it
        finally:
            server.open.discard(client)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    """Copy until either end is closed, then close the other."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(_CHUNK_BYTES):
            sink.sendall(chunk)
    _end(sink)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
