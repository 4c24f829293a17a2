"""Faults of clients: slow ones, half-closed ones, floods of them, those that vanish. All but them must not notice."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final

from tests.faults.siege.effects import METER, TENANTS, Effect
from tests.faults.siege.kinds import Kind
from tests.faults.siege.site import Plan, Site
from tests.support.gateway_process import GatewayProcess

READ_TIMEOUT_SECONDS: Final = 1.0
_SLOW_EACH: Final = 60
"""For each instance: twice as many as its two workers have threads."""
_FLOOD_EACH: Final = 400
_FLOOD_SECONDS: Final = 2.0
_VANISHING_EACH: Final = 50
_HALF_CLOSED_EACH: Final = 10
_STEP_SECONDS: Final = 0.1
_ANSWER_SECONDS: Final = 5.0


@contextlib.contextmanager
def bounded() -> Iterator[Plan]:
    """Instances that give a request a second to arrive in."""
    timeout = f"{READ_TIMEOUT_SECONDS * 1000:.0f}"
    yield Plan(environment={"GATEWAY_READ_TIMEOUT_MS": timeout})


def _connected(gateway: GatewayProcess, count: int) -> list[socket.socket]:
    found = []
    for _ in range(count):
        with contextlib.suppress(OSError):
            found.append(socket.create_connection((gateway.host, gateway.port), timeout=1.0))
    return found


def _stranger(number: int) -> Effect:
    """What a client wants that nobody will judge: it never waits for the answer."""
    tenant = TENANTS[number % len(TENANTS)]
    return Effect(METER.name, tenant, f"stranger-{time.monotonic_ns()}-{number}")


def _close(connections: Sequence[socket.socket], *, reset: bool = False) -> None:
    for one in connections:
        with contextlib.suppress(OSError):
            if reset:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            one.close()


def _trickle(site: Site, first: int) -> None:
    """Send requests up to byte ``first`` of the body (of the head, if negative), then byte after byte, without end.

    Over, as far as the site is concerned, when a request's time to arrive is over: the slow ones go on until then and
    on, but must be in nobody's way any more.
    """
    connections: list[tuple[socket.socket, bytes]] = []
    for gateway in site.gateways:
        for number, one in enumerate(_connected(gateway, _SLOW_EACH)):
            content, _ = _stranger(number).request()
            at = content.index(b"\r\n\r\n") + 4 + first
            with contextlib.suppress(OSError):
                one.sendall(content[:at])
            connections.append((one, content[at:]))
    over = threading.Event()

    def go_on() -> None:
        sent = 0
        while not over.wait(_STEP_SECONDS):
            for one, rest in connections:
                with contextlib.suppress(OSError):
                    one.send(rest[sent : sent + 1])
            sent += 1
        _close([one for one, _ in connections])

    thread = threading.Thread(target=go_on, name="slow-clients")
    thread.start()
    time.sleep(READ_TIMEOUT_SECONDS)
    try:
        site.await_service(5.0)
    finally:
        over.set()
        thread.join()


def slow_bodies(site: Site) -> None:
    _trickle(site, 10)


def slow_heads(site: Site) -> None:
    _trickle(site, -20)


def half_close(site: Site) -> None:
    """Requests whose clients close their sending side: they are answered all the same."""
    waiting: list[tuple[socket.socket, Effect, str]] = []
    for gateway in site.gateways:
        for number, one in enumerate(_connected(gateway, _HALF_CLOSED_EACH)):
            effect = _stranger(number)
            content, request_id = effect.request()
            one.sendall(content)
            one.shutdown(socket.SHUT_WR)
            waiting.append((one, effect, request_id))
    for one, _, request_id in waiting:
        one.settimeout(_ANSWER_SECONDS)
        received = b""
        with contextlib.suppress(OSError):
            while b"\r\n\r\n" not in received and (more := one.recv(4096)):
                received += more
        if f"X-Request-ID: {request_id}".encode() not in received:
            site.problems.append(f"a half-closed client got {received[:100]!r}")
        one.close()


def flood(site: Site) -> None:
    """Hundreds of connections at once that say nothing, for longer than any request may take."""
    connections = [one for gateway in site.gateways for one in _connected(gateway, _FLOOD_EACH)]
    time.sleep(_FLOOD_SECONDS)
    _close(connections, reset=site.dice.random() < 0.5)


def burst(site: Site) -> None:
    """Hundreds of connections at once, each with a request, all of which close without reading the answer."""
    for gateway in site.gateways:
        connections = _connected(gateway, _FLOOD_EACH // 4)
        for number, one in enumerate(connections):
            with contextlib.suppress(OSError):
                one.sendall(_stranger(number).request()[0])
        _close(connections, reset=True)


def vanish(site: Site) -> None:
    """Clients that go in the middle of their body: some close, some reset."""
    for gateway in site.gateways:
        connections = _connected(gateway, _VANISHING_EACH)
        for number, one in enumerate(connections):
            content, _ = _stranger(number).request()
            with contextlib.suppress(OSError):
                one.sendall(content[: -site.dice.randrange(1, 150)])
        time.sleep(0.1)
        _close(connections, reset=site.dice.random() < 0.5)
        time.sleep(0.1)


STRANGERS: Final = (
    Kind(
        "slow bodies",
        f"{_SLOW_EACH} clients for each instance send their body a byte every {_STEP_SECONDS} s, without end. Over when"
        f" a request's time to arrive is ({READ_TIMEOUT_SECONDS} s here); they go on.",
        slow_bodies,
        plan=bounded,
    ),
    Kind("slow heads", "The same, from within their headers on.", slow_heads, plan=bounded),
    Kind(
        "half-closed clients",
        f"{_HALF_CLOSED_EACH} clients for each instance close their side after the request; each must be answered.",
        half_close,
    ),
    Kind(
        "connection flood",
        f"{_FLOOD_EACH} connections to each instance at once that say nothing for {_FLOOD_SECONDS} s.",
        flood,
    ),
    Kind(
        "request burst",
        f"{_FLOOD_EACH // 4} connections to each instance at once, each with a request; reset without reading.",
        burst,
    ),
    Kind(
        "vanishing clients",
        f"{_VANISHING_EACH} clients for each instance go in the middle of their body.",
        vanish,
    ),
)
