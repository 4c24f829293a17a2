"""The log as an operator gets it: JSON from the first line to the last, one line a request, nothing of the clients'."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.access_credentials import KeyFile, bearer, nobodys_key
from tests.support.documents import ASSIGNMENTS, DECIDE, USAGE, decide_body, new_id
from tests.support.event_stream import EventStream
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import ADMIN, send_raw
from tests.support.idempotency_fleet import worker_clients
from tests.support.log_readers import PipedGateway, TerminalGateway
from tests.support.stacks import Running, running
from tests.support.waiting import GENEROUS_SECONDS, wait_until

SECRET: Final = "canary-5ecret-77"
TEXT: Final = "canary-payload-31"
MAIL: Final = "canary.person@example.org"
_PIPE_BYTES: Final = 65_536


def lines_of(gateway: GatewayProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gateway.output().splitlines()]


def access_lines(gateway: GatewayProcess, request_id: str) -> list[dict[str, Any]]:
    return [
        line
        for line in lines_of(gateway)
        if line["event"] == "request" and line.get("request_id") == request_id
    ]


def the_line_of(gateway: GatewayProcess, request_id: str) -> dict[str, Any]:
    """The one access line of a request."""
    (line,) = wait_until(lambda: access_lines(gateway, request_id))
    return line


def wait_for_order(gateway: GatewayProcess) -> None:
    """Return when the lines of all requests that were answered are written, whichever worker answered them."""
    with worker_clients(gateway) as clients:
        for client in clients.values():
            the_line_of(gateway, client.get("/nowhere").json()["context"]["request_id"])


@pytest.fixture(scope="module")
def chatty() -> Iterator[Running]:
    """A gateway that says all that it can say."""
    with running(
        "chatty", {"LOG_LEVEL": "debug", "LOG_FORMAT": "json"}, reference_router=True
    ) as it:
        yield it


REFUSED: Final = {
    "no request line": (b"\x16\x03\x01\x02\r\n\r\n", 400),
    "unknown version": (b"POST / HTTP/9.9\r\n\r\n", 400),
    "a header without a name": (b"GET / HTTP/1.1\r\nHost: g\r\nBad Name: 1\r\n\r\n", 400),
    "headers too large": (b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    "a line too long": (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
    "unknown coding": (b"GET / HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: x\r\n\r\n", 501),
    "unknown expectation": (b"GET / HTTP/1.1\r\nHost: g\r\nExpect: miracles\r\n\r\n", 417),
}


@pytest.mark.parametrize(("request_bytes", "status"), REFUSED.values(), ids=REFUSED)
def test_what_the_server_itself_refuses_has_the_contracts_body_and_an_access_line(
    chatty: Running, request_bytes: bytes, status: int
) -> None:
    gateway = chatty.gateway
    secret = f"Authorization: Bearer {SECRET}\r\nX-API-Key: {SECRET}\r\n".encode()
    sent = request_bytes.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n" + secret)
    head, _, body = send_raw(gateway.host, gateway.port, [sent], half_close=True).partition(
        b"\r\n\r\n"
    )
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    answer = json.loads(body)
    assert answer["ok"] is False and answer["error"]["code"] == "invalid_request"
    context = answer["context"]
    assert f"X-Request-ID: {context['request_id']}".encode() in head
    line = the_line_of(gateway, context["request_id"])
    assert (line["status"], line["route"], line["trace_id"]) == (
        status,
        "none",
        context["trace_id"],
    )
    assert line["error_type"] == "request_gateway" and line["error_code"] == "invalid_request"
    assert "client_address" not in line
    wait_for_order(gateway)
    assert SECRET not in gateway.output() and "xxxx" not in gateway.output()


def test_every_line_is_json_from_the_first_to_the_last() -> None:
    with running("whole-life", {"LOG_FORMAT": "auto"}, reference_router=True) as started:
        gateway = started.gateway
        with gateway.client() as client:
            assert client.post(DECIDE, decide_body()).status == 200
        gateway.terminate()
        assert gateway.wait() == 0
        lines = lines_of(gateway)
    events = [line["event"] for line in lines]
    assert events[0].startswith("Starting gunicorn") and events[-1].startswith("Shutting down")
    assert sum(event.startswith("Worker exiting") for event in events) == 2
    for line in lines:
        assert {"timestamp", "level", "logger", "pid", "event"} <= line.keys(), line


def test_an_access_line_says_what_happened(chatty: Running) -> None:
    body = decide_body(context={"session_id": new_id("s")})
    with chatty.gateway.client() as client:
        headers = {"X-CP-Phase": "cp4", "User-Agent": "canary-agent"}
        answer = client.post(f"{DECIDE}?q={TEXT}", body, headers)
        again = client.post(DECIDE, {**body, "request_id": new_id("r")})
    line = the_line_of(chatty.gateway, body["request_id"])
    assert line == {
        "timestamp": line["timestamp"],
        "level": "info",
        "event": "request",
        "logger": "gateway.access",
        "pid": line["pid"],
        "route": DECIDE,
        "method": "POST",
        "status": 200,
        "latency_ms": line["latency_ms"],
        "tenant": "acme",
        "request_id": body["request_id"],
        "trace_id": answer.header("X-Trace-ID"),
        "cp_phase": "cp4",
        "sticky": "miss",
        "replayed": False,
        "request_bytes": len(json.dumps(body)),
        "response_bytes": len(answer.body),
    }
    assert 0 < line["latency_ms"] < 30_000
    assert line["pid"] in chatty.gateway.workers()
    sticky = the_line_of(chatty.gateway, again.json()["context"]["request_id"])["sticky"]
    assert sticky == "hit"


def test_a_replay_is_told_from_the_first_time(chatty: Running) -> None:
    body = {
        "assignment_id": new_id("as"),
        "executor": {"provider_id": "p", "channel": "nats"},
        "job": {"type": "chat", "payload": {"text": "hello there"}},
    }
    with chatty.gateway.client() as client:
        ids = [new_id("r"), new_id("r")]
        for request_id in ids:
            assert client.post(ASSIGNMENTS, body, {"X-Request-ID": request_id}).status == 202
    # The answer of a repeat names the first call; its line is found by the id of its own.
    told = [the_line_of(chatty.gateway, request_id)["replayed"] for request_id in ids]
    assert told == [False, True]


def test_a_stream_has_its_line_when_it_has_ended(chatty: Running) -> None:
    headers = {**ADMIN, "X-Request-ID": new_id("stream")}
    with EventStream(
        chatty.gateway, headers, assignment_id=new_id("as"), heartbeat_ms=100, close_after_ms=700
    ) as stream:
        assert stream.status == 200
        wait_until(lambda: stream.events)
        assert access_lines(chatty.gateway, headers["X-Request-ID"]) == []
        line = the_line_of(chatty.gateway, headers["X-Request-ID"])
    assert line["status"] == 200 and line["latency_ms"] >= 700


FORGED: Final = '\\n{"event":"request","status":999}\x1b[2J\x9b31m'


def test_nothing_that_a_client_sends_makes_a_line_of_its_own(chatty: Running) -> None:
    """Ids hold no control characters; a path, a phase, an agent, a method may hold anything that HTTP lets pass."""
    gateway = chatty.gateway
    for request in (
        'GET /x%0a{"event":"request","status":999}%1b[2J HTTP/1.1\r\nHost: g\r\n',
        "GET /api/v1/operations/usage/%1b%5b2J%0d%0aevent HTTP/1.1\r\nHost: g\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in ADMIN.items()),
        f"GET / HTTP/1.1\r\nHost: g\r\nX-CP-Phase: {FORGED}\r\nUser-Agent: {FORGED}\r\n",
        f"GET / HTTP/1.1\r\nHost: g\r\nX-Request-ID: {FORGED}\r\nX-Trace-ID: {FORGED}\r\n",
        f"GET / HTTP/1.1\r\nHost: g\r\ntraceparent: 00-{FORGED}\r\n",
        "GET /\u2028\u202e%c2%9b HTTP/1.1\r\nHost: g\r\n",
    ):
        raw = request.encode("utf-8", "surrogatepass") + b"Connection: close\r\n\r\n"
        send_raw(gateway.host, gateway.port, [raw])
    wait_for_order(gateway)
    raw_output = gateway.output_path.read_bytes()
    assert b"\x1b" not in raw_output and b"\x9b" not in raw_output
    assert all(line.get("status") != 999 for line in lines_of(gateway))


def test_no_credential_no_payload_and_nothing_personal_is_logged_at_any_level(
    chatty: Running,
) -> None:
    gateway = chatty.gateway
    secrets = {
        "Authorization": f"Bearer {SECRET}",
        "X-API-Key": SECRET,
        "Cookie": f"session={SECRET}",
        "Proxy-Authorization": f"Basic {SECRET}",
        "User-Agent": f"agent of {MAIL}",
        "Referer": f"https://u:{SECRET}@example.org/{TEXT}",
        "X-Forwarded-For": "203.0.113.77",
    }
    payload = {"type": "chat", "payload": {"text": f"{TEXT} {MAIL}"}}
    with gateway.client() as client:
        good = decide_body(task=payload, context={"session_id": MAIL, "user_id": MAIL})
        assert client.post(DECIDE, good, secrets).status == 200
        assert client.post(f"{DECIDE}?token={SECRET}", {**good, MAIL: 1}, secrets).status == 400
        for path in (USAGE, ASSIGNMENTS, f"/{TEXT}/{MAIL}?key={SECRET}"):
            client.post(path, {"usage_id": MAIL, "text": TEXT, "password": SECRET}, secrets)
        client.request(
            "POST", DECIDE, body=f'{{"text": "{TEXT}'.encode(), headers={"Content-Type": "x"}
        )
        # What is named an id is logged as it is, but for what looks like a credential or an address.
        client.get(
            "/nowhere", {"X-Request-ID": "blk_0a1b2c3d_0123456789012345678901234567890123456789012"}
        )
        client.get("/nowhere", {"X-Request-ID": MAIL})
    cut_off = f"POST {DECIDE} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {SECRET}\r\nX-Te"
    send_raw(gateway.host, gateway.port, [cut_off.encode()], half_close=True)
    wait_for_order(gateway)
    output = gateway.output()
    for canary in (SECRET, TEXT, MAIL, "canary.person", "203.0.113.77", "_0123456789012"):
        assert canary not in output, canary


@pytest.mark.parametrize("way", ["url", "password", "token"])
def test_credentials_that_nats_refuses_are_not_logged(way: str) -> None:
    known = 'authorization { user: "gateway", password: "an0ther-one" }'
    with NatsServer(name="refusing", config=known) as nats:
        environment: Mapping[str, str] = {
            "url": {"NATS_URL": nats.url.replace("//", f"//gateway:{SECRET}@")},
            "password": {"NATS_USER": "gateway", "NATS_PASSWORD": SECRET},
            "token": {"NATS_TOKEN": SECRET},
        }[way]
        gateway = GatewayProcess(nats.url, environment={"LOG_LEVEL": "debug", **environment})
        try:
            gateway.start(ready=False)
            wait_until(lambda: "uthorization" in gateway.output())
            ready = gateway.get("/readyz")
            assert ready is not None and ready.status == 503
            assert SECRET not in gateway.output() and SECRET.encode() not in ready.body
        finally:
            gateway.close()


def test_the_address_of_a_client_is_named_only_if_it_is_asked_for() -> None:
    with running("addresses", {"LOG_CLIENT_ADDRESS": "true"}) as started:
        gateway = started.gateway
        refused = send_raw(gateway.host, gateway.port, [b"GET\r\n\r\n"], half_close=True)
        request_id = json.loads(refused.partition(b"\r\n\r\n")[2])["context"]["request_id"]
        with gateway.client() as client:
            answer = client.get("/nowhere", {"X-Forwarded-For": "203.0.113.77"})
        for found in (request_id, answer.json()["context"]["request_id"]):
            assert the_line_of(gateway, found)["client_address"] == "127.0.0.1"


def test_a_line_names_the_key_that_was_used_and_not_the_key(tmp_path: Path) -> None:
    keys = KeyFile(tmp_path)
    known, unknown = keys.make("acme", "admin"), nobodys_key()
    with running("keys-in-logs", {**keys.environment, "LOG_LEVEL": "debug"}) as started:
        gateway = started.gateway
        for headers in (bearer(known), {"X-API-Key": unknown}, {"X-Request-ID": known}):
            with gateway.client(headers) as client:
                answer = client.get("/api/v1/operations/usage/u-1")
            last = str(answer.header("X-Request-ID"))
            if last != known:
                line = the_line_of(gateway, last)
                assert line.get("key") == (known[:12] if answer.status == 404 else None)
        wait_until(lambda: gateway.output().count('"event":"request"') >= 3)
        assert known[12:] not in gateway.output() and unknown not in gateway.output()


def test_only_trouble_is_logged_at_the_level_of_warnings() -> None:
    with running("quiet", {"LOG_LEVEL": "warning"}) as started:
        gateway = started.gateway
        with gateway.client() as client:
            assert client.get("/nowhere").status == 404
            answer = client.post(DECIDE, decide_body())  # nobody listens there
        assert answer.status == 503
        line = the_line_of(gateway, answer.json()["context"]["request_id"])
        assert line["level"] == "warning" and line["error_type"] == "internal_gateway"
        assert [other["event"] for other in lines_of(gateway) if other["level"] == "info"] == []


# -- readers that are slow, gone, or people -------------------------------------------------------------


def test_requests_do_not_wait_for_a_reader_that_has_stopped() -> None:
    environment = {"LOG_LEVEL": "debug"}
    with NatsServer(name="unread") as nats, PipedGateway(nats.url, environment=environment) as it:
        with it.client() as client:
            sent = 0
            while sent < 20 * _PIPE_BYTES:  # far more than the pipe takes
                answer = client.get("/nowhere", {"X-Request-ID": "r" * 128})
                assert answer.status == 404 and answer.elapsed < GENEROUS_SECONDS / 4
                sent += 2 * 128
        for _ in range(3):  # NATS, too, is served: its loop logs as well
            assert it.get("/readyz") is not None
        it.read_on()
        wait_until(lambda: len(it.output()) > 2 * _PIPE_BYTES)
        for line in it.output().splitlines()[:-1]:
            assert json.loads(line)["event"]


def test_lines_that_nobody_reads_in_time_are_counted_and_told() -> None:
    with NatsServer(name="lossy") as nats, PipedGateway(nats.url) as it:

        def lost() -> float:
            answer = it.get("/metrics")
            assert answer is not None
            (value,) = re.findall(
                rb"^beamline_gateway_log_lines_lost_total (\S+)$", answer.body, re.MULTILINE
            )
            return float(value)

        def lost_after_more() -> float:
            with it.client() as client:
                for _ in range(500):
                    assert client.get("/nowhere").status == 404
            return lost()

        assert lost() == 0
        wait_until(lost_after_more, timeout=6 * GENEROUS_SECONDS)
        it.read_on()
        told = wait_until(lambda: [line for line in it.output().splitlines() if "lost" in line])
        assert json.loads(told[0])["level"] == "warning"


def test_a_reader_that_is_gone_ends_nothing() -> None:
    with NatsServer(name="gone") as nats, PipedGateway(nats.url) as it:
        it.stop_reading()
        with it.client() as client:
            for _ in range(200):
                assert client.get("/nowhere").status == 404
        assert it.get("/readyz").status == 200  # type: ignore[union-attr]
        it.terminate()
        assert it.wait() == 0


def test_a_stopped_reader_does_not_keep_the_gateway_from_ending() -> None:
    with NatsServer(name="stuck") as nats, PipedGateway(nats.url) as it:
        with it.client() as client:
            for _ in range(1_000):
                assert client.get("/nowhere").status == 404
        it.terminate()
        assert it.wait(GENEROUS_SECONDS) == 0


def test_people_at_a_terminal_get_lines_that_they_can_read() -> None:
    with NatsServer(name="terminal") as nats, TerminalGateway(nats.url) as it:
        with it.client() as client:
            client.get("/nowhere", {"X-Request-ID": "the-one"})
        line = wait_until(
            lambda: next((row for row in it.output().splitlines() if "the-one" in row), "")
        )
    assert not line.startswith("{")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", line)
    assert "request" in plain and "status=404" in plain and "route=none" in plain
