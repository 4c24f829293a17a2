"""The delivered nginx configuration, run by the real nginx: who may say who somebody is, and what it answers itself."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Self

import pytest

from tests.support.deploy_nginx import Front
from tests.support.deploy_upstream import RecordingUpstream
from tests.support.http_client import send_raw
from tests.support.waiting import wait_until

IDENTITY = {"X-Tenant-ID": "acme", "X-Role": "service"}


@pytest.fixture
def upstream() -> Iterator[RecordingUpstream]:
    """What the gateway would be sent."""
    with RecordingUpstream() as server:
        yield server


@pytest.fixture
def auth() -> Iterator[RecordingUpstream]:
    """An authenticating service that says who everybody is."""
    with RecordingUpstream(headers=IDENTITY) as server:
        yield server


def raw_request(headers: str, path: str = "/api/v1/usage") -> list[bytes]:
    return [f"GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n{headers}\r\n".encode()]


@pytest.mark.parametrize("authenticates", [False, True])
def test_nginx_accepts_what_is_delivered(
    authenticates: bool, upstream: RecordingUpstream, auth: RecordingUpstream
) -> None:
    front = Front([upstream.address] * 2, auth=auth.address if authenticates else None)
    with contextlib.closing(front._port), front._folder:
        ran = front.check()
        assert ran.returncode == 0, ran.stderr
        assert "[warn]" not in ran.stderr


def test_many_clients_share_few_connections_to_the_gateway(upstream: RecordingUpstream) -> None:
    with Front([upstream.address] * 2) as front:
        for _ in range(40):
            with front.client() as client:
                assert client.get("/api/v1/usage").status == 200
    assert len(upstream.seen) == 40
    # Each of nginx's workers has a pool of its own; here there is one.
    assert len({seen.connection for seen in upstream.seen}) == 1


def test_credentials_go_on_and_a_role_that_a_client_gives_itself_does_not(
    upstream: RecordingUpstream,
) -> None:
    sent = {
        "Authorization": "Bearer k",
        "X-API-Key": "k",
        "X-Tenant-ID": "acme",
        "X-Role": "admin",
        "x-role": "admin",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "X-Forwarded-For": "10.9.9.9",
    }
    with Front([upstream.address] * 2) as front, front.client(sent) as client:
        client.get("/api/v1/usage")
    (seen,) = upstream.seen
    assert seen.values("X-Role") == []
    assert seen.values("X-Forwarded-For") == ["127.0.0.1"]
    for name in ("Authorization", "X-API-Key", "X-Tenant-ID", "traceparent"):
        assert seen.values(name) == [sent[name]]


@pytest.mark.parametrize(
    "claimed",
    [
        "X-Tenant-ID: evil\r\nX-Role: admin\r\n",
        "x-tenant-id: evil\r\nx-role: admin\r\n",
        "X-Tenant-ID: evil\r\nX-Tenant-ID: evil2\r\nX-Role: admin\r\nX-Role: operator\r\n",
        "X_Tenant_ID: evil\r\nX_Role: admin\r\n",
        "X-Tenant_ID: evil\r\nX-Tenant-ID : evil\r\nX_Role: admin\r\n",
        "Connection: close, X-Tenant-ID, X-Role\r\nX-Tenant-ID: evil\r\n",
    ],
)
def test_only_the_authenticating_service_says_who_somebody_is(
    claimed: str, upstream: RecordingUpstream, auth: RecordingUpstream
) -> None:
    with Front([upstream.address] * 2, auth=auth.address) as front:
        send_raw(front.host, front.port, raw_request(claimed))
    for asked in auth.seen:
        assert asked.values("X-Tenant-ID") == asked.values("X-Role") == []
    for seen in upstream.seen:
        assert seen.values("X-Tenant-ID") == ["acme"]
        assert seen.values("X-Role") == ["service"]
        # gunicorn would read a name with underscores as the one with dashes.
        assert [name for name, _ in seen.headers if "_" in name] == []
        assert b"evil" not in repr(seen.headers).encode()
    # A name with a blank behind it is malformed: refused by nginx, and never seen by anybody.
    assert len(upstream.seen) == (0 if " :" in claimed else 1)


def test_the_service_sees_the_credentials_and_the_gateway_does_not(
    upstream: RecordingUpstream, auth: RecordingUpstream
) -> None:
    sent = {"Authorization": "Basic eDp5", "X-API-Key": "secret"}
    with Front([upstream.address] * 2, auth=auth.address) as front, front.client(sent) as client:
        assert client.post("/api/v1/usage", {"a": 1}).status == 200
    (asked,), (seen,) = auth.seen, upstream.seen
    assert asked.values("Authorization") == ["Basic eDp5"]
    assert asked.values("X-Original-URI") == ["/api/v1/usage"]
    assert asked.body == b""
    assert seen.values("Authorization") == seen.values("X-API-Key") == []
    assert seen.body == b'{"a": 1}'


@pytest.mark.parametrize(
    ("answer", "headers", "status", "code"),
    [
        (401, {"WWW-Authenticate": 'Basic realm="beamline"'}, 401, "unauthorized"),
        (403, {}, 403, "denied"),
        (500, {}, 503, "access_unavailable"),
    ],
)
def test_who_is_refused_by_the_service_never_reaches_the_gateway(
    answer: int,
    headers: Mapping[str, str],
    status: int,
    code: str,
    upstream: RecordingUpstream,
    auth: RecordingUpstream,
) -> None:
    auth.status, auth.headers = answer, dict(headers)
    with (
        Front([upstream.address] * 2, auth=auth.address) as front,
        front.client({"X-Tenant-ID": "evil", "X-Role": "admin"}) as client,
    ):
        refused = client.get("/api/v1/usage")
    assert (refused.status, refused.code) == (status, code)
    assert refused.header("WWW-Authenticate") == headers.get("WWW-Authenticate")
    assert upstream.seen == []


def test_a_service_that_answers_no_tenant_lets_nobody_be_what_he_says(
    upstream: RecordingUpstream, auth: RecordingUpstream
) -> None:
    auth.headers = {}
    with (
        Front([upstream.address] * 2, auth=auth.address) as front,
        front.client({"X-Tenant-ID": "evil", "X-Role": "admin"}) as client,
    ):
        client.get("/api/v1/usage")
    (seen,) = upstream.seen
    assert seen.values("X-Tenant-ID") == seen.values("X-Role") == []


def test_a_slow_client_costs_the_gateway_nothing_until_its_last_byte(
    upstream: RecordingUpstream,
) -> None:
    with (
        Front([upstream.address] * 2) as front,
        socket.create_connection((front.host, front.port), timeout=30) as slow,
    ):
        slow.sendall(b"POST /api/v1/usage HTTP/1.1\r\nHost: g\r\nContent-Length: 4\r\n\r\nab")
        with front.client() as other:  # served meanwhile, so nginx has read what was sent
            assert other.get("/api/v1/other").status == 200
        assert [seen.path for seen in upstream.seen] == ["/api/v1/other"]
        slow.sendall(b"cd")
        assert slow.recv(4096).startswith(b"HTTP/1.1 200")
    assert upstream.seen[1].body == b"abcd"


@pytest.mark.parametrize("path", ["/metrics", "/livez", "/readyz"])
def test_probes_and_metrics_are_not_shown_outside(path: str, upstream: RecordingUpstream) -> None:
    with Front([upstream.address] * 2) as front, front.client() as client:
        answer = client.get(path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert upstream.seen == []


def test_a_body_beyond_all_measure_is_refused_in_the_contracts_words(
    upstream: RecordingUpstream,
) -> None:
    with Front([upstream.address] * 2) as front, front.client() as client:
        answer = client.request("POST", "/api/v1/usage", body=b"x" * (2 * 1024 * 1024 + 1))
    assert (answer.status, answer.code) == (413, "payload_too_large")
    assert upstream.seen == []


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("r-17", "r-17"),
        ('x","tenant_id":"evil', None),
        ("\\", None),
        ("a b", None),
        ("x" * 129, None),
        (None, None),
    ],
)
def test_an_answer_of_nginx_itself_is_json_whatever_the_request_id_holds(
    given: str | None, shown: str | None
) -> None:
    headers = {} if given is None else {"X-Request-ID": given}
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        address = "{}:{}".format(*nobody.getsockname())
        with Front([address] * 2) as front, front.client(headers) as client:
            answer = client.post("/api/v1/usage", {})
    assert (answer.status, answer.code) == (504, "outcome_unknown")
    assert answer.header("Retry-After") == "1"
    body = answer.json()
    request_id = body["context"]["request_id"]
    assert set(body) == {"ok", "error", "context"} and body["context"]["tenant_id"] is None
    assert answer.header("X-Request-ID") == request_id
    assert request_id == shown if shown else len(request_id) == 32


class HangingUp:
    """Takes whole requests and hangs up: an instance that ends before it has answered."""

    def __init__(self) -> None:
        self.took = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = "{}:{}".format(*self._listener.getsockname())
        self._thread = threading.Thread(target=self._work, name="hanging-up", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _work(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    connection.recv(65536)
                    self.took += 1


@pytest.mark.parametrize(
    ("method", "path", "instances_asked"),
    [
        ("POST", "/api/v1/usage", 2),
        ("POST", "/api/v1/usage/batch", 2),
        ("POST", "/api/v1/assignments", 2),
        ("POST", "/api/v1/acks", 2),
        ("GET", "/api/v1/operations/usage/u-1", 2),
        ("GET", "/api/v1/results/a-1", 2),
        ("POST", "/api/v1/routes/decide", 1),
    ],
)
def test_what_is_executed_once_is_sent_to_the_next_instance_and_a_decide_is_not(
    method: str, path: str, instances_asked: int
) -> None:
    with HangingUp() as first, HangingUp() as second:
        with Front([first.address, second.address]) as front, front.client() as client:
            answer = client.request(method, path, body=b"{}")
        assert (answer.status, answer.code) == (504, "outcome_unknown")
        wait_until(lambda: first.took + second.took >= instances_asked)
        assert first.took + second.took == instances_asked
