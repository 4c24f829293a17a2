"""Kills at random moments: two gateways under load, each request sent by two clients, and something is always dying."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from gateway.devstack.nats_server import NatsServer
from tests.faults.asking import look_up, settle
from tests.faults.checker import Row, check
from tests.faults.executions import Executions
from tests.faults.lane import ENVIRONMENT, LEASE_SECONDS, STREAMS
from tests.faults.scenarios import ASK, ASSIGN, METER, Request, request
from tests.support.gateway_process import GatewayProcess
from tests.support.nats_session import NatsSession
from tests.support.scripted_router import ScriptedRouter
from tests.support.waiting import wait_until

FAULT: Final = "random moments, under load"
_CLIENTS: Final = 10
_MIX: Final = (ASSIGN, ASSIGN, METER, METER, ASK)
_PROGRESS: Final = 3
"""So many requests are settled between two kills: a system that never works shows nothing."""
_LONGEST_PAUSE_SECONDS: Final = 0.15
_PROGRESS_SECONDS: Final = 60.0


class _Clients:
    """Threads that send requests until told to stop; half of the requests are another thread's, sent again."""

    def __init__(self, gateways: Sequence[GatewayProcess], seed: int) -> None:
        self._gateways = gateways
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._twins: deque[Request] = deque()
        self._threads = [
            threading.Thread(target=self._run, args=(number,), name=f"faults-client-{number}")
            for number in range(_CLIENTS)
        ]
        self.requests: list[Request] = []
        self.settled = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Each client ends its current request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        turns = [self._gateways[(number + turn) % len(self._gateways)] for turn in (0, 1)]
        while not self._stop.is_set():
            mine = self._next()
            settle(mine, turns)
            if mine.scenario.decides:
                look_up(mine, turns)
            with self._lock:
                self.settled += 1

    def _next(self) -> Request:
        with self._lock:
            if self._twins:
                return self._twins.popleft()
            made = request(self._random.choice(_MIX), FAULT)
            self.requests.append(made)
            self._twins.append(made)
            return made


def run(kills: int, seed: int, progress: Callable[[str], None]) -> tuple[list[Row], int]:
    """Kill so many times, half of them a worker and half of them NATS; the rows, and how many were killed."""
    dice = random.Random(seed)
    executions = Executions()
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="random"))
        stack.enter_context(ScriptedRouter(nats.url, executions.decide))
        gateways = [
            stack.enter_context(
                GatewayProcess(nats.url, environment={**ENVIRONMENT, "WEB_CONCURRENCY": "2"})
            )
            for _ in range(2)
        ]
        clients = _Clients(gateways, seed)
        clients.start()
        done = 0
        try:
            for number in range(kills):
                _await_progress(clients)
                clients_had_time = threading.Event()
                clients_had_time.wait(dice.uniform(0.0, _LONGEST_PAUSE_SECONDS))  # the moment
                if number % 2:
                    nats.kill()
                    nats.start()
                    done += 1
                else:
                    done += _kill_worker(dice.choice(gateways), dice)
                if (number + 1) % 20 == 0:
                    progress(f"{FAULT}: {number + 1} of {kills}, {clients.settled} settled")
            _await_progress(clients)
        finally:
            clients.stop()
        with NatsSession(nats.url, name="checker") as session:
            stored = [one for stream in STREAMS for one in session.stream_messages(stream)]
    return check(clients.requests, stored, executions, LEASE_SECONDS), done


def _await_progress(clients: _Clients) -> None:
    wanted = clients.settled + _PROGRESS
    wait_until(
        lambda: clients.settled >= wanted,
        _PROGRESS_SECONDS,
        lambda: f"no {_PROGRESS} requests were settled between two kills",
    )


def _kill_worker(gateway: GatewayProcess, dice: random.Random) -> int:
    workers = gateway.workers()
    if not workers:
        return 0
    os.kill(dice.choice(workers), signal.SIGKILL)
    return 1
