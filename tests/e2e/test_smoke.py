"""``beamline-gateway smoke`` against real gateways: what passes, and what a wrong setting makes of it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation
from tests.support.documents import USAGE, new_id, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import ADMIN
from tests.support.operator_command import beamline_gateway
from tests.support.smoke_command import TENANTS, smoke
from tests.support.stacks import Running, running

QUICK = ("--wait", "3")
UNTRACED = ("--without-traces",)


@dataclass(frozen=True)
class Sending:
    """A gateway that sends its traces by ``protocol`` to ``address``, where nobody listens but a smoke check."""

    protocol: str
    address: str
    started: Running

    @property
    def target(self) -> tuple[str, ...]:
        """The arguments that name it, and two tenants."""
        return ("--url", self.started.gateway.url, *TENANTS)

    @property
    def receiving(self) -> tuple[str, ...]:
        """The arguments that receive what it sends."""
        return ("--otlp-listen", self.address, "--otlp-protocol", self.protocol)


@contextlib.contextmanager
def sending(protocol: str, **settings: str) -> Iterator[Sending]:
    with PortReservation() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{collector.address}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "METRICS_TENANT_LABEL_ALLOWLIST": "smoke-two",
            **settings,
        }
        with running("smoke", environment) as started:
            yield Sending(protocol, collector.address, started)


@pytest.fixture(scope="module")
def over_http() -> Iterator[Sending]:
    """Shared: kill nothing. The second tenant alone has a label of its own."""
    with sending("http/protobuf") as gateway:
        yield gateway


@pytest.fixture(scope="module")
def over_grpc() -> Iterator[Sending]:
    """The same over gRPC."""
    with sending("grpc") as gateway:
        yield gateway


@pytest.fixture(params=["http/protobuf", "grpc"])
def gateway(request: pytest.FixtureRequest, over_http: Sending, over_grpc: Sending) -> Sending:
    """Each of them. Both are named here, so that they are there before a test's own processes are counted."""
    return over_grpc if request.param == "grpc" else over_http


# -- what passes ---------------------------------------------------------------------------------------


def test_a_gateway_that_someone_else_runs_passes_with_its_traces(gateway: Sending) -> None:
    ended = smoke(*gateway.target, *gateway.receiving, NATS_URL=gateway.started.nats.url)
    assert (ended.code, ended.failures) == (0, []), ended.document
    unmade = {check for check, outcome in ended.outcomes.items() if outcome == "not_checked"}
    assert unmade == {"round-trip"}
    assert ended.message("identity") == "tenants smoke-one and smoke-two"
    assert ended.message("stream") == "one message for smoke-one and for smoke-two"


def test_the_protocol_of_the_environment_is_the_one_expected(over_grpc: Sending) -> None:
    listen = ("--otlp-listen", over_grpc.address)
    ended = smoke(*over_grpc.target, *listen, OTEL_EXPORTER_OTLP_PROTOCOL="grpc")
    assert (ended.code, ended.failures) == (0, []), ended.document


def test_it_passes_again_and_again_while_others_use_the_gateway(over_http: Sending) -> None:
    """The others repeat their events, too: every counter moves all the time."""
    done = threading.Event()

    def busy() -> None:
        with over_http.started.gateway.client(ADMIN) as client:
            while not done.is_set():
                body = usage_body(usage_id=new_id("us"))
                assert client.post(USAGE, body).status == 202
                assert client.post(USAGE, body).status == 202

    others = [threading.Thread(target=busy) for _ in range(3)]
    for other in others:
        other.start()
    try:
        for _ in range(3):
            ended = smoke(*over_http.target, *UNTRACED, NATS_URL=over_http.started.nats.url)
            assert (ended.code, ended.failures) == (0, []), ended.document
    finally:
        done.set()
        for other in others:
            other.join()
    assert "other, smoke-two" in ended.message("counters")


def test_without_nats_the_answers_alone_are_judged(over_http: Sending) -> None:
    ended = smoke(*over_http.target, *UNTRACED)
    assert (ended.code, ended.outcomes["stream"]) == (0, "not_checked")


def test_a_router_and_a_worker_are_asked_for_only_when_they_are_said_to_be_there(
    over_http: Sending,
) -> None:
    target = (*over_http.target, *UNTRACED)
    assert smoke(*target).code == 0
    ended = smoke(*target, "--round-trip")
    assert (ended.code, ended.failures) == (60, ["decide_failed"])
    assert "no responders" in ended.message("round-trip") or "503" in ended.message("round-trip")


def test_a_router_without_a_worker_is_told() -> None:
    with running("smoke", reference_router=True) as started:
        ended = smoke(
            "--url", started.gateway.url, *TENANTS, *UNTRACED, "--round-trip", "--timeout", "2"
        )
    assert (ended.code, ended.failures) == (63, ["result_missing"])


# -- metrics on a bind of their own --------------------------------------------------------------------


def test_metrics_that_are_elsewhere_are_looked_for_where_they_are_said_to_be() -> None:
    with (
        PortReservation() as metrics,
        running("smoke", {"METRICS_BIND": metrics.address}) as started,
    ):
        target = ("--url", started.gateway.url, *TENANTS, *UNTRACED)
        lost = smoke(*target)
        found = smoke(*target, "--metrics-url", f"http://{metrics.address}")
    assert (lost.code, lost.failures) == (20, ["metrics_unanswered"])
    assert lost.outcomes["once"] == "passed"
    assert (found.code, found.failures) == (0, [])


# -- wrong settings ------------------------------------------------------------------------------------


def test_a_gateway_that_sends_its_traces_elsewhere_is_told(over_http: Sending) -> None:
    ended = smoke(*over_http.target, "--otlp-listen", "127.0.0.1:0", *QUICK)
    assert (ended.code, ended.failures) == (41, ["traces_none"])


def test_a_gateway_that_speaks_the_other_protocol_is_told(gateway: Sending) -> None:
    expected = "http/protobuf" if gateway.protocol == "grpc" else "grpc"
    listen = ("--otlp-listen", gateway.address, "--otlp-protocol", expected)
    ended = smoke(*gateway.target, *QUICK, *listen)
    assert (ended.code, ended.failures) == (42, ["traces_wrong_protocol"])


def test_a_sampler_that_takes_nothing_is_told() -> None:
    with sending("http/protobuf", OTEL_TRACES_SAMPLER="always_off") as gateway:
        ended = smoke(*gateway.target, *gateway.receiving, *QUICK)
    assert (ended.code, ended.failures) == (41, ["traces_none"])


def test_a_collector_that_refuses_is_told_to_whoever_asks_with_the_gateways_environment(
    over_http: Sending,
) -> None:
    with PortReservation() as nobody:
        ended = smoke(
            *over_http.target,
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://{nobody.address}",
        )  # fmt: skip
    assert (ended.code, ended.failures) == (51, ["collector_refused"])


@pytest.mark.parametrize(
    ("headers", "code", "failure"),
    [
        ((), 15, "unauthorized"),
        (("--header", "X-Tenant-ID: smoke-one", "--header", "X-Role: viewer"), 16, "forbidden"),
    ],
)
def test_who_may_not_is_told(
    headers: tuple[str, ...], code: int, failure: str, over_http: Sending
) -> None:
    ended = smoke("--url", over_http.started.gateway.url, *headers, *UNTRACED)
    assert (ended.code, ended.failures) == (code, [failure])


def test_a_limit_of_the_gateway_is_told_as_one() -> None:
    with running("smoke", {"RATE_LIMIT_TENANT_REQUESTS": "2"}) as started:
        ended = smoke("--url", started.gateway.url, *TENANTS, *UNTRACED)
    assert (ended.code, ended.failures) == (18, ["request_failed"])
    assert "429" in ended.message("once")


def test_keys_of_two_tenants_come_from_the_environment_and_are_never_printed(
    tmp_path: Path,
) -> None:
    store = {
        "APIKEYS_FILE": str(tmp_path / "apikeys.json"),
        "AUDIT_LOG_FILE": str(tmp_path / "audit.log"),
    }
    keys = [
        beamline_gateway(
            "apikeys", "create", "--tenant", tenant, "--role", "service", environment=store
        ).out.strip()
        for tenant in ("smoke-one", "smoke-two")
    ]
    with sending("http/protobuf", AUTH_MODE="api_key", **store) as gateway:
        url = ("--url", gateway.started.gateway.url)
        passed = smoke(*url, *gateway.receiving, BEAMLINE_KEY=keys[0], BEAMLINE_TENANT_KEY=keys[1])
        refused = smoke(*url, *UNTRACED, BEAMLINE_KEY=f"{keys[0][:-1]}~")
    assert (passed.code, passed.failures) == (0, []), passed.document
    assert passed.message("identity") == "tenants smoke-one and smoke-two"
    assert (refused.code, refused.failures) == (15, ["unauthorized"])
    for ended in (passed, refused):
        assert not [key for key in keys if key[:-1] in f"{ended.document}{ended.errors}"]


# -- NATS ----------------------------------------------------------------------------------------------


def test_a_gateway_without_nats_is_not_ready_and_says_why() -> None:
    with PortReservation() as nobody:
        gateway = GatewayProcess(f"nats://{nobody.address}")
        try:
            gateway.start(ready=False)
            ended = smoke("--url", gateway.url, *TENANTS, *UNTRACED)
        finally:
            gateway.close()
    assert (ended.code, ended.failures) == (14, ["not_ready"])
    assert "NATS" in ended.message("readyz")
    assert ended.outcomes["metrics"] == "passed"


def test_another_nats_than_the_gateways_is_told(over_http: Sending, over_grpc: Sending) -> None:
    other = over_grpc.started.nats.url
    ended = smoke(*over_http.target, *UNTRACED, NATS_URL=other)
    assert (ended.code, ended.failures) == (34, ["not_stored"])


def test_a_nats_that_is_not_there_is_told(over_http: Sending) -> None:
    with PortReservation() as nobody:
        ended = smoke(*over_http.target, *UNTRACED, NATS_URL=f"nats://{nobody.address}")
    assert (ended.code, ended.failures) == (38, ["nats_unavailable"])


def test_the_checks_make_and_change_no_stream(over_http: Sending) -> None:
    with NatsServer(name="elsewhere") as elsewhere:
        url = elsewhere.url
        ended = smoke(*over_http.target, *UNTRACED, NATS_URL=url, IDEMPOTENCY_TTL_MS="1234567")
        assert elsewhere.jsz()["streams"] == 0
    assert (ended.code, ended.failures) == (34, ["not_stored"])


# -- a gateway that is there and does nothing ----------------------------------------------------------


def test_a_frozen_gateway_is_silent_within_the_bound() -> None:
    with running("smoke") as started:
        everything = [started.gateway.pid, *started.gateway.workers()]
        for pid in everything:
            os.kill(pid, signal.SIGSTOP)
        try:
            ended = smoke("--url", started.gateway.url, *TENANTS, *UNTRACED, "--timeout", "1")
        finally:
            for pid in everything:
                os.kill(pid, signal.SIGCONT)
    assert (ended.code, ended.failures) == (11, ["gateway_silent"])
    assert ended.document["checks"][0]["seconds"] < 10
