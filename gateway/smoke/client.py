"""HTTP as the checks need it: one connection a request, bounded in time and size, every trouble told apart.

A connection each, so that requests spread over the gateway's workers. On the standard library: neither proxies nor
``~/.netrc`` of the caller take part, and what goes wrong has the operating system's own name.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.smoke.failures import Failed, Failure

_LARGEST_BYTES: Final = 64 * 1024 * 1024
_CHUNK_BYTES: Final = 64 * 1024
_SHOWN_CHARACTERS: Final = 200
_EXPECTED: Final = "expected http(s)://host:port without user, query and fragment"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; names of headers have no case."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def document(self) -> dict[str, Any]:
        """The body as a JSON object; an empty one if it is anything else."""
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    def header(self, name: str) -> str:
        """A header's value, empty if it is not there."""
        return self.headers.get(name, "")

    def __str__(self) -> str:
        """Status, and the error's code and message or the beginning of the body; one printable line."""
        error = self.document().get("error")
        if isinstance(error, dict) and error.keys() >= {"code", "message"}:
            return one_line(f"{self.status} {error['code']}: {error['message']}")
        return one_line(
            f"{self.status} {self.body[: 4 * _SHOWN_CHARACTERS].decode(errors='replace')}"
        )


class Client:
    """Asks one base URL. ``timeout_seconds`` bounds the connection, each wait for the server, and the body."""

    def __init__(
        self, base_url: str, *, timeout_seconds: float, ca_file: Path | None = None
    ) -> None:
        """Raises ValueError for a URL that cannot be asked, and OSError for a CA file that cannot be read."""
        try:
            parts = urlsplit(base_url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError(_EXPECTED) from None  # theirs quotes the URL
        more = parts.username is not None or parts.query or parts.fragment
        if parts.scheme not in ("http", "https") or not host or more:
            raise ValueError(_EXPECTED)
        self.timeout_seconds = timeout_seconds
        self._host, self._port, self._prefix = host, port, parts.path.rstrip("/")
        self.base_url = base_url.rstrip("/")
        self._tls = ssl.create_default_context(cafile=ca_file) if parts.scheme == "https" else None

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Raises Failed when there is no answer."""
        return self._ask("GET", path, headers or {}, None)

    def post(self, path: str, document: object, headers: Mapping[str, str]) -> Answer:
        """POST ``document`` as JSON. Raises Failed when there is no answer."""
        sent = {"Content-Type": "application/json", **headers}
        return self._ask("POST", path, sent, json.dumps(document).encode())

    def _ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> Answer:
        url = f"{self.base_url}{path}"
        deadline = time.monotonic() + self.timeout_seconds
        try:
            with closing(self._connection()) as connection:
                connection.request(
                    method, f"{self._prefix}{path}", body, {"Connection": "close", **headers}
                )
                response = connection.getresponse()
                return Answer(response.status, response.headers, _read(response, deadline))
        except TimeoutError:
            waited = f"{self.timeout_seconds:g} s"
            raise Failed(
                Failure.GATEWAY_SILENT, f"{method} {url} is not answered within {waited}"
            ) from None
        # A reset after the connection was taken is an answer of a kind, and not one of a gateway.
        except (http.client.HTTPException, ConnectionResetError, BrokenPipeError) as error:
            raise Failed(
                Failure.NOT_A_GATEWAY, f"{url} does not answer in HTTP ({_reason(error)})"
            ) from None
        except OSError as error:
            raise Failed(Failure.GATEWAY_UNREACHABLE, f"{url}: {_reason(error)}") from None

    def _connection(self) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=self.timeout_seconds)
        return http.client.HTTPSConnection(
            self._host, self._port, timeout=self.timeout_seconds, context=self._tls
        )


def one_line(text: str) -> str:
    """``text`` as one line that is safe on a terminal, cut to a readable length."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    """The body. A server that drips has no more time than one that is silent."""
    body = bytearray()
    while chunk := response.read1(_CHUNK_BYTES):
        body += chunk
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(body) > _LARGEST_BYTES:
            raise http.client.HTTPException("a body without end")
    if response.length:
        raise http.client.IncompleteRead(bytes(body), response.length)
    return bytes(body)


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or error}"
    if isinstance(error, socket.gaierror):
        return f"no address for this host ({error.strerror})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return one_line(f"{type(error).__name__}: {error}").rstrip(": ")
