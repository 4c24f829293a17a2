"""The JWKS over HTTP: from the address that was configured, within a bound, or not at all."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import pytest

from gateway.identity.signing_keys import from_file, from_url
from gateway.sources import LOOKUP_SECONDS, SourceUnavailable
from tests.support.access_tokens import JwksServer, SigningKey, jwks
from tests.support.waiting import PATIENCE

KEY: Final = SigningKey("one")
#: What one look may take: the connection, the first byte, the rest, each of them bounded.
BOUND_SECONDS: Final = (LOOKUP_SECONDS + 0.5) * PATIENCE


@pytest.fixture
def provider() -> Iterator[JwksServer]:
    with JwksServer(jwks(KEY)) as provider:
        yield provider


@contextmanager
def bare_server(reply: bytes) -> Iterator[str]:
    """Whoever answers there writes these bytes, whatever it is asked; the URL."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/jwks.json"
        thread.join(5)


def refused(url: str) -> str:
    started = time.monotonic()
    with pytest.raises(SourceUnavailable) as caught:
        from_url(url)()
    assert time.monotonic() - started < BOUND_SECONDS
    return str(caught.value)


def test_the_keys_are_those_of_the_document(provider: JwksServer) -> None:
    assert set(from_url(provider.url)()) == {"one"}
    assert provider.asked == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(provider: JwksServer, status: int) -> None:
    with JwksServer(jwks(SigningKey("evil"))) as evil:
        provider.status, provider.headers = status, {"Location": evil.url}
        refused(provider.url)
        assert evil.asked == 0


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_an_error_is_no_document_even_if_it_holds_one(provider: JwksServer, status: int) -> None:
    provider.status = status
    refused(provider.url)


@pytest.mark.parametrize("document", [b"", b"<html>", b'{"keys": []}', b"\xff" * 100])
def test_what_is_no_jwks_is_none(provider: JwksServer, document: bytes) -> None:
    provider.document = document
    refused(provider.url)


def test_a_document_over_a_mebibyte_is_not_read_to_its_end(provider: JwksServer) -> None:
    provider.document = jwks(KEY) + b" " * (2 * 1024 * 1024)
    assert "larger" in refused(provider.url)


def test_a_document_that_ends_early_is_none(provider: JwksServer) -> None:
    provider.headers = {"Content-Length": str(len(provider.document))}
    provider.document = provider.document[:-20]
    refused(provider.url)


def test_a_source_that_does_not_answer_is_given_up(provider: JwksServer) -> None:
    provider.hold()
    refused(provider.url)


def test_a_source_that_drips_is_given_up(provider: JwksServer) -> None:
    provider.drip_seconds = 0.05  # twenty seconds for all of it
    refused(provider.url)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"\x00\xff\x00\xff",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
    ],
)
def test_what_speaks_no_http_is_no_source(reply: bytes) -> None:
    with bare_server(reply) as url:
        refused(url)


def test_nobody_there_is_no_source() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    refused(f"http://127.0.0.1:{port}/jwks.json")


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(KEY))
    read = from_file(path)
    assert set(read()) == {"one"}
    path.write_bytes(jwks(SigningKey("two", "EC")))
    assert set(read()) == {"two"}
    path.write_bytes(b'{"keys": []}')
    with pytest.raises(SourceUnavailable):
        read()
