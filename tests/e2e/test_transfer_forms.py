"""How legacy clients send: in chunks, slowly, with old protocol versions, and giving up in between."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.documents import DECIDE, USAGE, decide_body, usage_body
from tests.support.http_client import ADMIN, Client, paced, send_raw
from tests.support.load import at_once
from tests.support.nats_tap import NatsTap
from tests.support.scripted_router import DECIDE_SUBJECT
from tests.support.stacks import Running
from tests.support.waiting import LIVEZ_SECONDS
from tests.support.wire import expect_error

JSON_TYPE = {"Content-Type": "application/json"}
MIB = 1024 * 1024


def pieces(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def raw_post(body: bytes, *headers: str, version: str = "HTTP/1.1") -> bytes:
    """A request as text, with an administrator's identity."""
    identity = [f"{name}: {value}" for name, value in ADMIN.items()]
    lines = [f"POST {DECIDE} {version}", "Host: gateway", *identity]
    return "\r\n".join([*lines, "Content-Type: application/json", *headers, "", ""]).encode() + body


def encoded() -> bytes:
    return json.dumps(decide_body()).encode()


@pytest.mark.parametrize("size", [1, 7, 4096])
def test_chunked_body_is_read(client: Client, size: int) -> None:
    answer = client.request("POST", DECIDE, body=pieces(encoded(), size), headers=JSON_TYPE)
    assert answer.status == 200, answer


def test_chunked_publish_is_stored(client: Client) -> None:
    body = json.dumps(usage_body()).encode()
    answer = client.request("POST", USAGE, body=pieces(body, 11), headers=JSON_TYPE)
    assert answer.status == 202, answer


def test_empty_chunked_body_is_no_document(client: Client) -> None:
    answer = client.request("POST", DECIDE, body=iter(()), headers=JSON_TYPE)
    expect_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("chunked", [True, False], ids=["in chunks", "with a length"])
def test_slowly_sent_body_is_read(stack: Running, chunked: bool) -> None:
    body = encoded()
    slow = paced(pieces(body, len(body) // 10), 0.05)
    if chunked:
        with stack.gateway.client() as client:
            answer = client.request("POST", DECIDE, body=slow, headers=JSON_TYPE)
        assert answer.status == 200, answer
        return
    head = raw_post(b"", f"Content-Length: {len(body)}", "Connection: close")
    received = send_raw(stack.gateway.host, stack.gateway.port, [head, *slow])
    assert received.startswith(b"HTTP/1.1 200 "), received


def test_slow_senders_do_not_hold_up_the_others(stack: Running) -> None:
    """As many slow bodies as one worker has threads less two; the others are answered meanwhile."""

    def slow_one(_: int) -> int:
        body = encoded()
        with stack.gateway.client() as client:
            slow = paced(pieces(body, len(body) // 10), 0.1)
            return client.request("POST", DECIDE, body=slow, headers=JSON_TYPE).status

    def quick_one(_: int) -> float:
        with stack.gateway.client() as client:
            answer = client.get("/livez")
            assert answer.status == 200
            return answer.elapsed

    results = at_once(range(10), lambda n: slow_one(n) if n < 6 else quick_one(n))
    assert set(results[:6]) == {200}
    assert max(results[6:]) <= LIVEZ_SECONDS


def test_chunked_body_over_the_limit_is_refused_without_reading_it_all(
    client: Client, tap: NatsTap
) -> None:
    endless = (b"x" * 65536 for _ in range(64 * MIB // 65536))
    answer = client.request("POST", DECIDE, body=endless, headers=JSON_TYPE)
    expect_error(answer, 413, "payload_too_large")
    tap.settle()
    assert tap.messages() == []


@pytest.mark.parametrize("size", [4096, 65536, 2 * MIB])
@pytest.mark.parametrize("rest", [b" ", b"x", b" " * 100_000], ids=["blank", "garbage", "blanks"])
def test_chunked_document_with_more_behind_the_limit_is_refused(
    client: Client, tap: NatsTap, size: int, rest: bytes
) -> None:
    """A whole document in the first MiB does not make the rest unsaid."""
    document = encoded()
    body = document + b" " * (MIB - len(document)) + rest
    answer = client.request("POST", DECIDE, body=pieces(body, size), headers=JSON_TYPE)
    expect_error(answer, 413, "payload_too_large")
    tap.settle()
    assert tap.messages() == []


def test_chunked_body_of_exactly_the_limit_is_read(client: Client) -> None:
    body = encoded()
    full = body[:-1] + b" " * (MIB - len(body)) + b"}"
    answer = client.request("POST", DECIDE, body=pieces(full, 65536), headers=JSON_TYPE)
    assert answer.status == 200, answer


def test_announced_length_over_the_limit_is_refused_before_the_body_comes(
    stack: Running,
) -> None:
    head = raw_post(b"", f"Content-Length: {MIB + 1}", "Connection: close")
    received = send_raw(stack.gateway.host, stack.gateway.port, [head])
    assert received.startswith(b"HTTP/1.1 413 "), received
    assert b'"payload_too_large"' in received


def test_expect_100_continue_is_honoured(stack: Running) -> None:
    """curl asks so before it sends what is long."""
    body = encoded()
    head = raw_post(
        b"", f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close"
    )
    received = send_raw(stack.gateway.host, stack.gateway.port, [head, body])
    assert b"HTTP/1.1 200 " in received, received


def test_http_1_0_client_is_answered_and_disconnected(stack: Running) -> None:
    body = encoded()
    request = raw_post(body, f"Content-Length: {len(body)}", version="HTTP/1.0")
    received = send_raw(stack.gateway.host, stack.gateway.port, [request])
    head, _, content = received.partition(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0], received
    assert json.loads(content)["ok"] is True


def test_one_connection_serves_many_requests(stack: Running) -> None:
    with stack.gateway.client() as client:
        statuses = []
        for number in range(50):
            document = decide_body() if number % 5 else {"asignment_id": "as-1"}
            statuses.append(client.post(DECIDE, document).status)
    assert statuses.count(200) == 40
    assert statuses.count(400) == 10


def test_refused_body_does_not_become_the_next_request(stack: Running) -> None:
    """What was not read of a refused body must not be taken for a request (smuggling)."""
    hidden = b"GET /hidden HTTP/1.1\r\nHost: gateway\r\n\r\n"
    first = raw_post(hidden, f"Content-Length: {len(hidden)}").replace(
        b"application/json", b"text/plain"
    )
    second = b"GET /livez HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n"
    received = send_raw(stack.gateway.host, stack.gateway.port, [first, second])
    assert received.startswith(b"HTTP/1.1 415 "), received
    assert b" 404 " not in received
    assert received.count(b"HTTP/1.1 ") <= 2


@pytest.mark.parametrize(
    "cut", [raw_post(b'{"version": "1"', "Content-Length: 500"), raw_post(b"", "Content-Length: 9")]
)
def test_client_that_gives_up_in_the_middle_causes_nothing(
    stack: Running, tap: NatsTap, cut: bytes
) -> None:
    send_raw(stack.gateway.host, stack.gateway.port, [cut], half_close=True)
    with stack.gateway.client() as client:
        assert client.post(DECIDE, decide_body()).status == 200
    tap.wait_for(1, DECIDE_SUBJECT)
    tap.settle()
    assert len(tap.messages()) == 1


def test_broken_http_is_refused_and_harms_nobody(stack: Running, tap: NatsTap) -> None:
    broken = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"POST / HTTP/9.9\r\n\r\n",
        raw_post(b"", "Content-Length: -5"),
        raw_post(b"", "Content-Length: five"),
        raw_post(b"zz\r\n", "Transfer-Encoding: chunked"),
        raw_post(b"0\r\n\r\n", "Transfer-Encoding: chunked", "Content-Length: 4"),
        raw_post(b"", "X-Long: " + "x" * 100_000),
    ]
    for request in broken:
        received = send_raw(stack.gateway.host, stack.gateway.port, [request], half_close=True)
        assert b" 200 " not in received[:20], (request[:80], received)
        assert b" 500 " not in received[:20], (request[:80], received)
    tap.settle()
    assert tap.messages() == []
    with stack.gateway.client() as client:
        assert client.post(DECIDE, decide_body()).status == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/_health", "/metrics"])
def test_head_is_get_without_a_body(client: Client, path: str) -> None:
    answer = client.request("HEAD", path)
    assert answer.status == 200
    assert answer.body == b""


@pytest.mark.parametrize("path", [DECIDE, USAGE, "/livez"])
def test_options_tells_the_methods_or_is_refused(client: Client, path: str) -> None:
    answer = client.request("OPTIONS", path)
    assert answer.status in (200, 204, 405), answer
    assert answer.header("Allow"), answer
    if answer.status == 405:
        expect_error(answer, 405, "method_not_allowed", tenant=None)


def test_head_of_a_post_endpoint_is_not_allowed(client: Client) -> None:
    answer = client.request("HEAD", DECIDE)
    assert answer.status == 405
    assert answer.body == b""
