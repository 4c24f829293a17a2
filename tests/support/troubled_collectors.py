"""Collectors in trouble: each yields the endpoint that a gateway is told."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gateway.devstack.ports import PortReservation


@contextlib.contextmanager
def away() -> Iterator[str]:
    """Nobody listens."""
    with PortReservation() as port:
        yield f"http://{port.address}"


@contextlib.contextmanager
def hanging() -> Iterator[str]:
    """The kernel takes connections, and nobody ever answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        host, port = listener.getsockname()
        yield f"http://{host}:{port}"


@contextlib.contextmanager
def refusing() -> Iterator[str]:
    """Every export is answered 503."""

    class Refuse(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(503)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuse) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
