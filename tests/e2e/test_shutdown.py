"""Ending in order: requests in flight are answered, workers are replaced under load, nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from tests.support.documents import DECIDE, USAGE, decide_body, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client
from tests.support.load import Load, at_once, kinds
from tests.support.process_table import is_alive
from tests.support.scripted_router import (
    RouterRequest,
    ScriptedRouter,
    decide_for,
    own_provider,
)
from tests.support.stacks import running
from tests.support.waiting import wait_until

IN_FLIGHT = 20
GRACEFUL = 10.0
# All twenty fit into one worker, however the kernel spreads their connections.
ENVIRONMENT = {
    "GATEWAY_THREADS": "32",
    "WEB_CONCURRENCY": "2",
    "GATEWAY_GRACEFUL_TIMEOUT_MS": str(int(GRACEFUL * 1000)),
}


def silent(request: RouterRequest) -> None:
    """The Router that waits for the test's word."""


def decide(gateway: GatewayProcess, request_id: str) -> Answer:
    with gateway.client() as client:
        return client.post(DECIDE, decide_body(request_id=request_id))


def one_decide(client: Client) -> Answer:
    """The load of the recycling tests."""
    return client.post(DECIDE, decide_body())


def test_sigterm_with_twenty_requests_in_flight_answers_them_all() -> None:
    ids = [f"r-{number}" for number in range(IN_FLIGHT)]
    seen: dict[str, object] = {}
    with (
        running("ending", ENVIRONMENT) as started,
        ScriptedRouter(started.nats.url, silent) as router,
    ):
        gateway, nats = started.gateway, started.nats
        workers = gateway.workers()
        probe = gateway.client(headers={}, timeout=2.0)
        assert probe.get("/readyz").status == 200

        def work(item: str) -> Answer | None:
            if item in ids:
                return decide(gateway, item)
            waiting = router.wait_for_requests(IN_FLIGHT)
            seen["terminated"] = time.monotonic()
            gateway.terminate()
            # Not ready while there is still work: a load balancer takes it out before it is gone. The
            # kept connection may be closed instead, or its worker may not have had the signal yet.
            with contextlib.suppress(OSError):
                wait_until(lambda: probe.get("/readyz").status == 503, timeout=2.0)
                seen["readyz"] = 503
            assert gateway.running, "it did not wait for the requests in flight"
            for request in waiting:
                router.answer(request, decide_for(request))
            seen["released"] = time.monotonic()
            return None

        answers = at_once([*ids, "operator"], work)[:-1]
        probe.close()
        assert gateway.wait(GRACEFUL) == 0
        ended = time.monotonic()
        for request_id, answer in zip(ids, answers, strict=True):
            assert answer is not None
            assert answer.status == 200, answer
            assert answer.json()["decision"]["provider_id"] == own_provider(request_id)
        released = seen["released"]
        assert isinstance(released, float)
        assert ended - released < GRACEFUL / 2, "what was left to do took too long"
        assert not [pid for pid in workers if is_alive(pid)]
        wait_until(lambda: nats.varz()["connections"] == 1, message="a connection is left at NATS")
    assert seen.get("readyz", 503) == 503
    assert "Traceback" not in gateway.output()


def test_readiness_fails_first_when_the_end_begins() -> None:
    """Seen on a connection that was there before, on the one worker there is."""
    environment = {**ENVIRONMENT, "WEB_CONCURRENCY": "1"}
    with (
        running("ending", environment) as started,
        ScriptedRouter(started.nats.url, silent) as router,
    ):
        gateway = started.gateway
        answers: list[Answer] = []
        waiting = threading.Thread(
            target=lambda: answers.append(decide(gateway, "r-1")), daemon=True
        )
        waiting.start()
        request = router.wait_for_requests(1)[0]
        (worker,) = gateway.workers()
        with gateway.client(headers={}, timeout=2.0) as probe:
            assert probe.get("/readyz").status == 200
            # To the worker itself: the master would close the listening socket as well.
            os.kill(worker, signal.SIGTERM)
            # Or the kept connection is closed: that says the same to a load balancer.
            with contextlib.suppress(OSError):
                wait_until(lambda: probe.get("/readyz").status == 503, timeout=3.0)
        assert waiting.is_alive(), "the request in flight was not waited for"
        router.answer(request, decide_for(request))
        waiting.join(GRACEFUL)
        assert answers[0].status == 200


def test_idle_gateway_ends_quickly() -> None:
    with running("ending", ENVIRONMENT) as started:
        started.gateway.terminate()
        begun = time.monotonic()
        assert started.gateway.wait(GRACEFUL) == 0
        assert time.monotonic() - begun < 5.0


def test_kept_idle_connections_do_not_delay_the_end() -> None:
    with running("ending", ENVIRONMENT) as started, contextlib.ExitStack() as stack:
        for _ in range(10):
            assert stack.enter_context(started.gateway.client()).get("/livez").status == 200
        started.gateway.terminate()
        begun = time.monotonic()
        assert started.gateway.wait(GRACEFUL) == 0
        assert time.monotonic() - begun < GRACEFUL / 2


def test_workers_without_a_master_end_with_the_next_answer_of_each_connection() -> None:
    """However busy a connection is: it is told to close, not served until the graceful time cuts it."""
    with running("ending", ENVIRONMENT) as started:
        gateway = started.gateway
        workers = gateway.workers()
        told: list[int] = []
        at_work = threading.Barrier(9)

        def ask_until_told() -> None:
            with gateway.client(headers={}) as client:
                client.get("/livez")  # what nobody has accepted yet goes with the address
                at_work.wait(GRACEFUL)
                while (answer := client.get("/livez")).header("Connection") != "close":
                    pass
                told.append(answer.status)

        clients = [threading.Thread(target=ask_until_told, daemon=True) for _ in range(8)]
        for one in clients:
            one.start()
        at_work.wait(GRACEFUL)
        os.kill(gateway.pid, signal.SIGKILL)
        gateway.wait()
        wait_until(lambda: not any(is_alive(pid) for pid in workers), GRACEFUL / 2)
        for one in clients:
            one.join(GRACEFUL)
        assert told == [200] * len(clients)


def test_request_that_never_ends_does_not_keep_the_gateway() -> None:
    """A silent Router: the deadline ends the request, the gateway ends below its graceful time."""
    environment = {**ENVIRONMENT, "ROUTER_REQUEST_TIMEOUT_MS": "2000"}
    with (
        running("ending", environment) as started,
        ScriptedRouter(started.nats.url, silent) as router,
    ):

        def work(item: int) -> Answer | None:
            if item:
                return decide(started.gateway, f"r-{item}")
            router.wait_for_requests(5)
            started.gateway.terminate()
            return None

        begun = time.monotonic()
        answers = [answer for answer in at_once(range(6), work) if answer is not None]
        assert started.gateway.wait(GRACEFUL) == 0
        assert time.monotonic() - begun < GRACEFUL
    assert {(answer.status, answer.code) for answer in answers} <= {
        (504, "timeout"),
        (503, "unavailable"),
    }


@pytest.mark.parametrize("keep_alive", [False, True], ids=["new connections", "kept connections"])
def test_worker_recycled_under_load_fails_no_request(keep_alive: bool) -> None:
    with (
        running("recycled") as started,
        ScriptedRouter(started.nats.url),
        Load(started.gateway.client, one_decide, clients=4, keep_alive=keep_alive) as load,
    ):
        for _ in range(3):
            load.wait_for(20, "200", since=time.monotonic())
            victim, *_ = workers = started.gateway.workers()
            os.kill(victim, signal.SIGTERM)
            started.gateway.wait_for_workers(len(workers), without=frozenset({victim}))
        load.wait_for(20, "200", since=time.monotonic())
        outcomes = load.stop()
        wait_until(lambda: started.nats.varz()["connections"] == 3)
    failed = [outcome for outcome in outcomes if outcome.kind != "200"]
    assert not failed, f"{kinds(outcomes)}, as {failed[0]}"


def test_workers_that_recycle_themselves_fail_no_request() -> None:
    environment = {"GATEWAY_MAX_REQUESTS": "60"}
    with (
        running("recycling", environment) as started,
        ScriptedRouter(started.nats.url),
    ):
        first = frozenset(started.gateway.workers())
        with Load(started.gateway.client, one_decide, clients=4) as load:
            load.wait_for(400, "200")
            started.gateway.wait_for_workers(2, without=first)
            outcomes = load.stop()
    failed = [outcome for outcome in outcomes if outcome.kind != "200"]
    assert not failed, f"{kinds(outcomes)}, as {failed[0]}"


def test_worker_killed_outright_is_replaced() -> None:
    with running("killed") as started, ScriptedRouter(started.nats.url):
        victim, *_ = started.gateway.workers()
        os.kill(victim, signal.SIGKILL)
        started.gateway.wait_for_workers(2, without=frozenset({victim}))
        with started.gateway.client() as client:
            wait_until(lambda: client.post(USAGE, usage_body()).status == 202)
        answers = [decide(started.gateway, f"r-{number}").status for number in range(10)]
        assert answers == [200] * 10
        assert (found := started.gateway.get("/metrics")) and found.status == 200


def test_metrics_of_a_recycled_worker_stay_counted() -> None:
    with (
        running("counted") as started,
        ScriptedRouter(started.nats.url),
        started.gateway.client() as client,
    ):
        for _ in range(10):
            assert client.post(DECIDE, decide_body()).status == 200
        workers = started.gateway.workers()
        for victim in workers:
            os.kill(victim, signal.SIGTERM)
        started.gateway.wait_for_workers(2, without=frozenset(workers))
        wait_until(lambda: counted(started.gateway) == 10, message="requests were forgotten")


def counted(gateway: GatewayProcess) -> float:
    """Successful decides by /metrics, over all workers that ever were."""
    answer = gateway.get("/metrics")
    lines = answer.body.decode().splitlines() if answer is not None else []
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith("beamline_gateway_cp_requests_total{")
        and f'route="{DECIDE}"' in line
        and 'status="200"' in line
    )
