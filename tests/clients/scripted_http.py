"""An HTTP server that answers as a test tells it, one step a request: a status, a broken connection, silence."""

from __future__ import annotations

import abc
import contextlib
import http.client
import http.server
import socket
import struct
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

#: Seconds that a silent step holds the connection: longer than any client waits for one answer.
_SILENCE_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Step:
    """One answer. ``fault``: ``reset`` before any answer, ``cut`` in its body, ``silent``."""

    status: int = 202
    retry_after: str | None = None
    body: bytes = b'{"ok":true}'
    fault: str = ""

    def __str__(self) -> str:
        return self.fault or f"{self.status}{'' if self.retry_after is None else '+retry-after'}"


@dataclass(frozen=True)
class Heard:
    """One request, and when it came (monotonic seconds)."""

    at: float
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class AnsweringHttp(abc.ABC):
    """A server whose answers a subclass chooses."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._over = threading.Event()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @abc.abstractmethod
    def step(self, heard: Heard) -> Step:
        """What is answered to this request, which is the last one of ``self.heard``."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"]))
        headers = {name.lower(): value for name, value in request.headers.items()}
        heard = Heard(time.monotonic(), request.command, request.path, headers, body)
        self.heard.append(heard)
        step = self.step(heard)
        if step.fault == "silent":
            self._over.wait(_SILENCE_SECONDS)
        if step.fault in ("reset", "silent"):
            linger = struct.pack("ii", 1, 0)  # closing sends RST
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            request.close_connection = True
            return
        request.send_response(step.status)
        if step.retry_after is not None:
            request.send_header("Retry-After", step.retry_after)
        if step.status == 302:
            request.send_header("Location", "/elsewhere")
        request.send_header("Content-Length", str(len(step.body)))
        request.end_headers()
        request.wfile.write(step.body[: len(step.body) // 2] if step.fault == "cut" else step.body)
        request.close_connection = step.fault == "cut"


class ScriptedHttp(AnsweringHttp):
    """Answers with the steps in their order, the last one for ever."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self._steps = list(steps)

    def step(self, heard: Heard) -> Step:
        return self._steps[min(len(self.heard), len(self._steps)) - 1]


class LosingFront(AnsweringHttp):
    """Passes every request on to a gateway, and loses its answer the first time that a body is sent."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__()
        self._gateway = (host, port)

    def step(self, heard: Heard) -> Step:
        connection = http.client.HTTPConnection(*self._gateway, timeout=_SILENCE_SECONDS)
        with contextlib.closing(connection):
            connection.request(heard.method, heard.path, heard.body, heard.headers)
            response = connection.getresponse()
            body = response.read()
        lost = sum(one.body == heard.body for one in self.heard) == 1
        return Step(
            response.status, response.getheader("Retry-After"), body, "reset" if lost else ""
        )
