"""The metrics' own address (``METRICS_BIND``): ``/metrics`` and nothing else, on threads of its own in each worker.

gunicorn's master binds it as it binds the public one, and hands it on at an upgrade; each worker takes it out of
gunicorn's hands and answers there itself. So a scrape is answered while all threads for requests are busy, nobody has
to supervise another process, and the master, which forks, has no thread. A client that says nothing is given up after
`_PATIENCE_SECONDS`; more than `_AT_ONCE` at a time in one worker are turned away.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from werkzeug.wrappers import Request, Response

from gateway.telemetry.metrics.exposition import expose
from gateway.telemetry.metrics.files import Unsettled

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_log = logging.getLogger(__name__)
PATH: Final = "/metrics"
_METHODS: Final = ("GET", "HEAD")
_AT_ONCE: Final = 4
_PATIENCE_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.2
_BUSY: Final = b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"


class MetricsServer:
    """Answers on ``listener``, a socket that listens already, and closes it at its end. Made after the fork."""

    def __init__(self, listener: socket.socket) -> None:
        self._server = _Server(listener)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Take no more scrapes, and give those begun ``timeout`` seconds to end."""
        self._server.shutdown()
        self._server.server_close()
        self._server.drain(timeout)


class _Server(ThreadingMixIn, WSGIServer):
    """The standard library's WSGI server, on a socket that listens already and with a bounded number of threads."""

    daemon_threads = True

    def __init__(self, listener: socket.socket) -> None:
        address = listener.getsockname()[:2]
        super().__init__(address, _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = address
        self.setup_environ()
        self.set_app(_answer)
        self._places = threading.BoundedSemaphore(_AT_ONCE)

    def get_request(self) -> tuple[socket.socket, Any]:
        """The next connection. Raises OSError: another worker was faster, or there is no descriptor left."""
        try:
            return super().get_request()
        except BlockingIOError:
            raise
        except OSError:
            time.sleep(_POLL_SECONDS)  # it would be tried again at once, and again
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer on a thread of its own, if there is a place for one."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.send(_BUSY)
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """On that thread."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away, or said nothing, is no error of ours."""

    def drain(self, timeout: float) -> None:
        """Wait until nobody is answered any more."""
        end = time.monotonic() + timeout
        for _ in range(_AT_ONCE):
            self._places.acquire(timeout=max(0.0, end - time.monotonic()))


class _Handler(WSGIRequestHandler):
    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not logged."""


def _answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    return _response(Request(environ))(environ, start_response)


def _response(request: Request) -> Response:
    if request.path != PATH:
        return Response("There is nothing at this path.\n", 404)
    if request.method not in _METHODS:
        return Response(
            "This path does not take that method.\n", 405, {"Allow": ", ".join(_METHODS)}
        )
    headers = request.headers
    try:
        found = expose(headers.get("Accept", ""), headers.get("Accept-Encoding", ""))
    except Unsettled as error:
        _log.warning("a scrape failed: %s", error)
        return Response(f"{error}; try again.\n", 503, {"Retry-After": "1"})
    return Response(found.body, 200, found.headers)
