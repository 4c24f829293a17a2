"""Workers are replaced and killed: counters stay exact at every moment, and scrapes as cheap as before."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.support.capture import metric_files
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client
from tests.support.load import NO_ANSWER, Load, kinds
from tests.support.scraping import scrape_of
from tests.support.stacks import running
from tests.support.waiting import wait_until

PATH = "/health"
REQUESTS_TOTAL = "beamline_gateway_cp_requests_total"


def counted(gateway: GatewayProcess) -> int:
    return int(scrape_of(gateway).total(REQUESTS_TOTAL, route=PATH))


def started_workers(gateway: GatewayProcess) -> int:
    return int(scrape_of(gateway).total("beamline_gateway_worker_starts_total"))


def replace_all(gateway: GatewayProcess) -> None:
    """Ask every worker to end, and wait until others are ready in their place."""
    old = gateway.workers()
    for pid in old:
        os.kill(pid, signal.SIGTERM)
    gateway.wait_for_workers(len(old), without=frozenset(old))
    # One that is still being made would not hear the next signal.
    wait_until(lambda: ready(gateway) == len(old), message=gateway.output_tail)


def ready(gateway: GatewayProcess) -> int:
    try:
        return int(scrape_of(gateway).total("beamline_gateway_ready_workers"))
    except OSError:  # nobody listens for a moment
        return 0


@contextmanager
def watching(gateway: GatewayProcess, load: Load) -> Iterator[Callable[[], int]]:
    """Scrape all the while: each scrape holds all that was answered before it began, and never less than the one
    before it. Gives how often it has."""
    over = threading.Event()
    wrong: list[str] = []
    scrapes = 0

    def watch() -> None:
        nonlocal scrapes
        last = 0
        while not over.is_set():
            answered = sum(outcome.answer is not None for outcome in load.outcomes())
            try:
                found = counted(gateway)
            except OSError:  # the worker that was to answer was killed
                continue
            if found < max(answered, last):
                wrong.append(f"{found} counted, {answered} answered before, {last} in the last")
            last, scrapes = found, scrapes + 1

    threads = [threading.Thread(target=watch) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield lambda: scrapes
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert not wrong, wrong[:5]


def asking(gateway: GatewayProcess) -> Load:
    """A connection for each request: none is reused at the moment in which its worker ends."""

    def ask(client: Client) -> object:
        return client.get(PATH)

    return Load(lambda: gateway.client(headers={}), ask, keep_alive=False)  # type: ignore[arg-type]


def test_counters_are_exact_while_twenty_workers_are_replaced() -> None:
    with running("replaced", {"GATEWAY_DRAIN_MS": "0", "WEB_CONCURRENCY": "5"}) as started:
        gateway = started.gateway
        wait_until(lambda: ready(gateway) == 5)
        before = started_workers(gateway)
        with asking(gateway) as load, watching(gateway, load) as scrapes:
            for _ in range(4):
                replace_all(gateway)
                so_far = scrapes()
                wait_until(lambda so_far=so_far: scrapes() > so_far + 4)  # type: ignore[misc]
            outcomes = load.stop()
        answered = kinds(outcomes)["200"]
        unanswered = kinds(outcomes)[NO_ANSWER]
        assert answered > 100 and answered + unanswered == len(outcomes)
        # One that was cut off may have been counted before; none is twice.
        assert answered <= counted(gateway) <= answered + unanswered
        assert started_workers(gateway) - before == 20
        settled = counted(gateway)
        with gateway.client(headers={}) as client:
            for _ in range(50):
                client.get(PATH)
        assert counted(gateway) == settled + 50


def test_counters_are_exact_when_workers_are_killed() -> None:
    with running("killed") as started:
        gateway = started.gateway
        for _ in range(3):
            before = counted(gateway)
            with gateway.client(headers={}) as first, gateway.client(headers={}) as second:
                for _ in range(20):
                    first.get(PATH)
                    second.get(PATH)
            assert counted(gateway) == before + 40
            old = gateway.workers()
            for pid in old:
                os.kill(pid, signal.SIGKILL)
            gateway.wait_for_workers(2, without=frozenset(old))
            wait_until(lambda: gateway.get("/livez") is not None)
            assert counted(gateway) == before + 40
        with asking(gateway) as load, watching(gateway, load):
            for _ in range(5):
                [victim, *_] = gateway.workers()
                os.kill(victim, signal.SIGKILL)
                gateway.wait_for_workers(2, without=frozenset({victim}))
            outcomes = load.stop()
        answered = kinds(outcomes)["200"]
        assert 120 + answered <= counted(gateway) <= 120 + len(outcomes)


def test_gauges_are_of_the_workers_that_live() -> None:
    with running("gauges") as started:
        gateway = started.gateway
        workers = gateway.workers()
        wait_until(lambda: ready(gateway) == 2)
        for name in ("workers", "configured_workers", "bridge_connected_workers", "build_info"):
            expected = 1 if name == "build_info" else 2
            assert scrape_of(gateway).total(f"beamline_gateway_{name}") == expected, name
        os.kill(workers[0], signal.SIGKILL)
        gateway.wait_for_workers(2, without=frozenset(workers[:1]))
        wait_until(lambda: ready(gateway) == 2, message=lambda: str(scrape_of(gateway)))
        assert scrape_of(gateway).total("beamline_gateway_workers") == 2
        assert scrape_of(gateway).total("beamline_gateway_worker_starts_total") == 3


def test_a_killed_worker_leaves_no_request_in_flight() -> None:
    """One was waiting in it: a gauge that counted on would tell of a request that nobody has."""
    with running("in-flight", {"WEB_CONCURRENCY": "1"}) as started:
        gateway = started.gateway
        waiting = threading.Thread(target=_wait_for_a_result, args=(gateway,))
        waiting.start()

        def busy() -> tuple[float, float]:
            found = scrape_of(gateway)
            return (
                found.total("beamline_gateway_in_flight_requests"),
                found.total("beamline_gateway_waiting_requests"),
            )

        wait_until(lambda: busy() == (1, 1))
        [worker] = gateway.workers()
        os.kill(worker, signal.SIGKILL)
        gateway.wait_for_workers(1, without=frozenset({worker}))
        waiting.join()
        wait_until(lambda: gateway.get("/livez") is not None)
        assert busy() == (0, 0)


def test_files_do_not_pile_up() -> None:
    environment = {
        "PROMETHEUS_MULTIPROC_DIR": "metrics",
        "GATEWAY_DRAIN_MS": "0",
        "WEB_CONCURRENCY": "1",
    }
    with running("files", environment) as started:
        gateway = started.gateway

        def held() -> int:
            return len(metric_files(gateway.folder / "metrics"))

        wait_until(lambda: ready(gateway) == 1)
        first = held()
        for _ in range(3):
            replace_all(gateway)
        # An archive of counters, and one of histograms.
        wait_until(lambda: held() == first + 2, message=lambda: f"{held()} files, {first} at first")
        gateway.terminate()
        assert gateway.wait() == 0
        assert list((gateway.folder / "metrics").iterdir()) == []


def test_what_a_killed_gateway_left_is_removed_by_the_next() -> None:
    with running("left", {"PROMETHEUS_MULTIPROC_DIR": "metrics"}) as started:
        gateway = started.gateway
        with gateway.client(headers={}) as client:
            client.get(PATH)
        [left] = (gateway.folder / "metrics").iterdir()
        gateway.kill()
        gateway.start()
        [made] = (gateway.folder / "metrics").iterdir()
        assert made != left
        assert counted(gateway) == 0, "a run begins at zero"


def test_a_folder_that_cannot_be_used_stops_the_start_and_is_named() -> None:
    gateway = GatewayProcess(environment={"PROMETHEUS_MULTIPROC_DIR": "/proc/nothing"})
    gateway.spawn()
    try:
        assert gateway.wait() != 0
        assert "PROMETHEUS_MULTIPROC_DIR: expected a folder" in gateway.output()
        assert "Traceback" not in gateway.output()
    finally:
        gateway.close()


def _wait_for_a_result(gateway: GatewayProcess) -> None:
    with gateway.client() as client:
        try:
            client.get("/api/v1/results/nothing?wait_ms=20000")
        except OSError:
            return  # the worker was killed
    raise AssertionError("answered")
