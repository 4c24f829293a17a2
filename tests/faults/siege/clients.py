"""Clients: a process that asks for effects without pause, many times each, at every instance, and keeps every outcome.

Raw sockets on one loop: what the machine can do is the gateway's. Driven over a pipe by `Siege`, which lives in the
program's own process; both ends of it are here. When the program goes away, the process ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, cast

import uvloop

from gateway.devstack import child_process
from tests.faults.siege.effects import (
    ACK,
    ASK,
    ASSIGN,
    BATCH,
    METER,
    PLAIN,
    TENANTS,
    Attempt,
    Effect,
    Operation,
)
from tests.support.gateway_process import REPOSITORY

Address = tuple[str, int]

_MIX: Final[tuple[Operation, ...]] = (
    (METER,) * 20 + (BATCH,) + (ASSIGN,) * 8 + (ACK,) * 4 + (ASK,) * 8
)
_NEW_SHARE: Final = 0.08
_PLAIN_SHARE: Final = 0.03
_OPEN_SHARE: Final = 0.3
"""Of the requests while something is unsettled: those that go on with it."""
_RECENT: Final = 60
_MOST_OPEN: Final = 300
_PAUSE_SECONDS: Final = 0.01
_CONNECT_SECONDS: Final = 1.0
_PATIENCE_SECONDS: Final = 1.0
"""Longer than an answer may take at most: what comes then is late, and known to be."""
_START_SECONDS: Final = 30.0
_SETTLE_CLIENTS: Final = 16
_LAG_STEP_SECONDS: Final = 0.05


@dataclass
class Late:
    """A request that was not answered in time; ``status`` 0: not at all. ``port`` is the client's."""

    request_id: str
    port: int
    sent: float
    seconds: float
    status: int


@dataclass
class Ledger:
    """What clients saw."""

    effects: list[Effect] = field(default_factory=list)
    statuses: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    cut: int = 0
    unreachable: int = 0
    late: list[Late] = field(default_factory=list)
    crossed: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    lag_seconds: float = 0.0
    """How long the clients' own loop was held up at most: what they measure may be so much too long."""


class Siege:
    """The program's end: starts the process, tells it what to do, gets its ledger."""

    def __init__(
        self, addresses: Sequence[Address], *, clients: int, limit: float, seed: int
    ) -> None:
        # Not by `multiprocessing`, whose tracker outlives the last of its processes.
        self._folder = tempfile.TemporaryDirectory(prefix="siege-")
        path = str(Path(self._folder.name) / "orders")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
            listener.listen()
            listener.settimeout(_START_SECONDS)
            given = json.dumps([path, list(addresses), clients, limit, seed])
            program = f"from {__name__} import main; import sys; main(sys.argv[1])"
            self._process = child_process.spawn(
                [sys.executable, "-c", program, given],
                stdout=subprocess.DEVNULL,
                stderr=sys.__stderr__.fileno() if sys.__stderr__ else subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )
            try:
                accepted, _ = listener.accept()
            except TimeoutError:
                child_process.kill(self._process)
                raise AssertionError("the clients do not start") from None
        accepted.setblocking(True)
        self._pipe = Connection(accepted.detach())

    def begin(self) -> None:
        """Ask, until `finish`."""
        self._pipe.send("begin")

    def requests(self) -> int:
        """How many requests have been sent so far."""
        self._pipe.send("requests")
        return int(self._receive(10.0))

    def finish(self, settle_seconds: float) -> Ledger:
        """Ask for nothing new; settle what is open, within ``settle_seconds``; ask for each effect once more."""
        self._pipe.send(("finish", settle_seconds))
        ledger = self._receive(settle_seconds * 2 + 120.0)
        assert isinstance(ledger, Ledger)
        return ledger

    def close(self) -> None:
        self._pipe.close()
        child_process.terminate(self._process, timeout=5.0)
        self._folder.cleanup()

    def _receive(self, timeout: float) -> Any:
        if not self._pipe.poll(timeout):
            raise AssertionError(f"the clients say nothing for {timeout:.0f} s")
        return self._pipe.recv()


# -- in the process of the clients ------------------------------------------------------------------


def main(given: str) -> None:
    """The process; ``given`` as `Siege` makes it."""
    path, addresses, clients, limit, seed = json.loads(given)
    with socket.socket(socket.AF_UNIX) as orders:
        orders.connect(path)
        pipe = Connection(orders.detach())
    where = [(host, port) for host, port in addresses]
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_Clients(where, clients, limit, seed).serve(pipe))


class _Wire(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiter: asyncio.Future[tuple[int, bytes, bytes] | None] | None = None
        self.port = 0
        self._received = b""

    @property
    def open(self) -> bool:
        return self.transport is not None and not self.transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by its class
        self.port = transport.get_extra_info("sockname")[1]

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._received[: end + 2]
        at = head.find(b"Content-Length: ")
        length = int(head[at + 16 : head.find(b"\r\n", at)]) if at >= 0 else 0
        if len(self._received) < end + 4 + length:
            return
        body, self._received = self._received[end + 4 :], b""
        if b"\r\nConnection: close\r\n" in head:
            self.close()
        self._give((int(head[9:12]), head, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._give(None)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    def _give(self, answer: tuple[int, bytes, bytes] | None) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(answer)


class _Clients:
    """All clients; ``limit`` is how many seconds an answer may take at most."""

    def __init__(self, addresses: list[Address], clients: int, limit: float, seed: int) -> None:
        self._addresses = addresses
        self._clients = clients
        self._limit = limit
        self._dice = random.Random(seed)
        self._run = f"{seed}-{time.time_ns() // 1_000_000:x}"
        self._numbers = itertools.count()
        self._pair: list[tuple[Operation, str, str]] = []
        self._recent: deque[Effect] = deque(maxlen=_RECENT)
        self._open: dict[int, Effect] = {}
        self._ledger = Ledger()
        self._asking = False

    async def serve(self, pipe: Connection) -> None:
        loop = asyncio.get_running_loop()
        orders: asyncio.Queue[Any] = asyncio.Queue()

        def listen() -> None:
            with contextlib.suppress(EOFError, OSError):
                while True:
                    order = pipe.recv()
                    loop.call_soon_threadsafe(orders.put_nowait, order)
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(orders.put_nowait, None)

        threading.Thread(target=listen, daemon=True).start()
        watching = asyncio.create_task(self._watch_lag())
        working: list[asyncio.Task[None]] = []
        while (order := await orders.get()) is not None:
            if order == "begin":
                self._asking = True
                working = [asyncio.create_task(self._ask_on()) for _ in range(self._clients)]
            elif order == "requests":
                pipe.send(self._ledger.requests)
            else:
                self._asking = False
                await asyncio.gather(*working)
                await self._settle(order[1])
                pipe.send(self._ledger)
        watching.cancel()
        for task in working:
            task.cancel()

    async def _watch_lag(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(_LAG_STEP_SECONDS)
            lag = time.monotonic() - before - _LAG_STEP_SECONDS
            if self._asking:
                self._ledger.lag_seconds = max(self._ledger.lag_seconds, lag)

    async def _ask_on(self) -> None:
        """One client: a connection to each instance, any of them at any time."""
        wires = [_Wire() for _ in self._addresses]
        while self._asking:
            if not await self._attempt(self._choose(), wires):
                await asyncio.sleep(_PAUSE_SECONDS)
        for wire in wires:
            wire.close()

    def _choose(self) -> Effect:
        drawn = self._dice.random()
        if self._open and drawn < _OPEN_SHARE:
            return self._open[next(iter(self._open))]
        if drawn > 1 - _PLAIN_SHARE:
            return self._made(PLAIN, f"plain-{next(self._numbers)}", self._dice.choice(TENANTS))
        room = len(self._open) < _MOST_OPEN
        if not self._recent or (drawn > 1 - _PLAIN_SHARE - _NEW_SHARE and room):
            # Every id is both tenants' own, under the same operation.
            if not self._pair:
                operation, name = self._dice.choice(_MIX), str(next(self._numbers))
                self._pair = [(operation, name, tenant) for tenant in TENANTS]
            effect = self._made(*self._pair.pop())
            self._open[id(effect)] = effect
            self._recent.append(effect)
            return effect
        return self._dice.choice(self._recent)

    def _made(self, operation: Operation, name: str, tenant: str) -> Effect:
        effect = Effect(operation.name, tenant, f"{self._run}-{name}")
        self._ledger.effects.append(effect)
        return effect

    async def _settle(self, seconds: float) -> None:
        """Two rounds: what is open until it is settled or the time is over, then everything with a key once."""
        end = time.monotonic() + seconds
        waiting = list(self._open.values())

        async def settle() -> None:
            wires = [_Wire() for _ in self._addresses]
            while waiting and time.monotonic() < end:
                effect = waiting.pop()
                if not await self._attempt(effect, wires):
                    waiting.insert(0, effect)
                    await asyncio.sleep(_PAUSE_SECONDS)
            for wire in wires:
                wire.close()

        await asyncio.gather(*(settle() for _ in range(_SETTLE_CLIENTS)))
        again = [effect for effect in self._ledger.effects if effect.operation != PLAIN.name]

        async def repeat() -> None:
            wires = [_Wire() for _ in self._addresses]
            while again:
                effect = again.pop()
                for _ in range(20):
                    if await self._attempt(effect, wires):
                        break
                    await asyncio.sleep(_PAUSE_SECONDS)
            for wire in wires:
                wire.close()

        await asyncio.gather(*(repeat() for _ in range(_SETTLE_CLIENTS)))

    async def _attempt(self, effect: Effect, wires: list[_Wire]) -> bool:
        """Ask once, at any instance; whether that settled it."""
        index = self._dice.randrange(len(wires))
        wire = wires[index]
        loop = asyncio.get_running_loop()
        ledger = self._ledger
        if not wire.open:
            wire = wires[index] = _Wire()
            try:
                async with asyncio.timeout(_CONNECT_SECONDS):
                    await loop.create_connection(lambda: wire, *self._addresses[index])
            except OSError:  # builtin timeouts are among them
                ledger.unreachable += 1
                return False
        assert wire.transport is not None
        content, request_id = effect.request()
        waiter: asyncio.Future[tuple[int, bytes, bytes] | None] = loop.create_future()
        wire.waiter = waiter
        sent = time.monotonic()
        attempt = Attempt(effect.asked, sent)
        if effect.operation == ASK.name:
            effect.attempts.append(attempt)
        expiry = loop.call_later(self._limit + _PATIENCE_SECONDS, _expire, waiter)
        wire.transport.write(content)
        ledger.requests += 1
        try:
            answer = await waiter
        finally:
            expiry.cancel()
        attempt.ended = time.monotonic()
        seconds = attempt.ended - sent
        attempt.status = answer[0] if answer else 0
        if seconds > self._limit:
            ledger.late.append(Late(request_id, wire.port, sent, seconds, attempt.status))
        if answer is None:
            ledger.cut += 1
            wire.close()
            return False
        ledger.slowest_seconds = max(ledger.slowest_seconds, seconds)
        status, head, body = answer
        ledger.statuses[str(status)] = ledger.statuses.get(str(status), 0) + 1
        crossed = effect.note(request_id, status, head, body)
        if crossed:
            ledger.crossed.append(crossed)
        if effect.settled:
            self._open.pop(id(effect), None)
        return status < 500 and status not in (409, 429)


def _expire(waiter: asyncio.Future[tuple[int, bytes, bytes] | None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
