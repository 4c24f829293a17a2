"""A small HTTP/1.1 client like those that the gateway was made for: one socket, no retries, no magic.

On the standard library's ``http.client``, so that a test says exactly what is sent: raw bodies, chunks
with pauses between them, headers twice. `send_raw` goes below even that.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

from tests.support.canaries import HEADERS as CANARIES

#: What an authenticating proxy sets in AUTH_MODE=headers.
ADMIN: Final[Mapping[str, str]] = {"X-Tenant-ID": "acme", "X-Role": "admin"}

JSON: Final = "application/json"

Headers = Mapping[str, str] | Sequence[tuple[str, str]]
Body = bytes | Iterable[bytes] | None


def as_tenant(tenant: str, role: str = "admin") -> dict[str, str]:
    """The identity headers of another tenant or role."""
    return {"X-Tenant-ID": tenant, "X-Role": role}


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are compared without case."""

    status: int
    header_list: tuple[tuple[str, str], ...]
    body: bytes
    elapsed: float = field(compare=False)  # seconds, from the first byte sent to the last one read

    def header(self, name: str) -> str | None:
        """The header's value, or None."""
        for key, value in self.header_list:
            if key.lower() == name.lower():
                return value
        return None

    def json(self) -> Any:
        """The body as JSON. Fails, showing it, if it is not."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"not JSON: {self}") from None

    @property
    def code(self) -> str | None:
        """The error's code, or None for a success or a body that is no error of ours."""
        with contextlib.suppress(ValueError, TypeError, KeyError):
            code = json.loads(self.body)["error"]["code"]
            return code if isinstance(code, str) else None
        return None

    def __str__(self) -> str:
        body = self.body[:600].decode(errors="replace")
        return f"HTTP {self.status} in {self.elapsed:.3f} s: {body}"


class Client:
    """One keep-alive connection, opened when needed. Not for several threads at once."""

    def __init__(
        self, host: str, port: int, *, headers: Mapping[str, str], timeout: float = 30.0
    ) -> None:
        self.host = host
        self.port = port
        self.headers = dict(headers)
        self._connection = http.client.HTTPConnection(host, port, timeout=timeout)

    def get(self, path: str, headers: Headers = ()) -> Answer:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, document: object, headers: Headers = ()) -> Answer:
        """POST ``document`` as JSON."""
        body = json.dumps(document, ensure_ascii=False).encode()
        return self.request(
            "POST", path, body=body, headers=[("Content-Type", JSON), *_pairs(headers)]
        )

    def request(
        self, method: str, path: str, *, body: Body = None, headers: Headers = ()
    ) -> Answer:
        """Send one request and read its whole answer.

        Bytes go with a Content-Length, any other iterable in chunks. ``headers`` are added to the
        client's own; naming one of those replaces it.
        """
        given = _pairs(headers)
        named = {name.lower() for name, _ in given}
        own = {**CANARIES, **self.headers}
        sent = [pair for pair in own.items() if pair[0].lower() not in named] + given
        connection = self._connection
        started = time.monotonic()
        try:
            connection.putrequest(method, path)
            for name, value in sent:
                connection.putheader(name, value)
            if isinstance(body, bytes):
                connection.putheader("Content-Length", str(len(body)))
            elif body is not None:
                connection.putheader("Transfer-Encoding", "chunked")
            elif method in ("POST", "PUT", "PATCH"):
                connection.putheader("Content-Length", "0")
            connection.endheaders()
            # A server may refuse before it has read the whole body: its answer counts, not our pipe.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for piece in _encoded(body):
                    connection.send(piece)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            if isinstance(error, OSError):
                raise
            raise ConnectionError(f"no HTTP answer: {error!r}") from error
        return Answer(
            response.status, tuple(response.getheaders()), content, time.monotonic() - started
        )

    @property
    def local_port(self) -> int:
        """The client's end of the open connection. Fails if there is none."""
        sock = self._connection.sock
        assert sock is not None, "the connection is not open"
        port: int = sock.getsockname()[1]
        return port

    def close(self) -> None:
        """Close the connection; a later request opens another."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def paced(pieces: Iterable[bytes], interval: float) -> Iterator[bytes]:
    """The pieces with ``interval`` seconds between them: a client behind a bad line."""
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(interval)
        yield piece


def send_raw(
    host: str,
    port: int,
    pieces: Iterable[bytes],
    *,
    half_close: bool = False,
    timeout: float = 30.0,
) -> bytes:
    """Write ``pieces`` as they are and read until the server closes.

    ``half_close`` tells the server that nothing more will come, as a client that gave up does.
    """
    with socket.create_connection((host, port), timeout=timeout) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = bytearray()
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                received += data
        return bytes(received)


def _pairs(headers: Headers) -> list[tuple[str, str]]:
    return list(headers.items()) if isinstance(headers, Mapping) else list(headers)


def _encoded(body: Body) -> Iterator[bytes]:
    if body is None:
        return
    if isinstance(body, bytes):
        yield body
        return
    for piece in body:
        if piece:
            yield b"%x\r\n%b\r\n" % (len(piece), piece)
    yield b"0\r\n\r\n"
