"""Asking as an honest client does: the same request again, here or at another instance, until it is settled."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from tests.faults.scenarios import Attempt, Request, new_trace_id
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import ADMIN, Client

#: A client's patience with one attempt and with one request. The second is what "unknown" in the report means.
ATTEMPT_SECONDS: Final = 10.0
SETTLE_SECONDS: Final = 45.0
_PAUSE_SECONDS: Final = 0.02


def ask(
    gateway: GatewayProcess, request: Request, on_send: Callable[[str], None] = lambda trace: None
) -> Attempt:
    """One attempt, under a request id and a trace id of its own and on a connection of its own."""
    trace_id = new_trace_id()
    on_send(trace_id)
    headers = {"X-Request-ID": trace_id, "X-Trace-ID": trace_id}
    sent = time.monotonic()
    answer = None
    # The worker was killed, perhaps: a client does not know more than that there is no answer.
    with (
        Client(gateway.host, gateway.port, headers=ADMIN, timeout=ATTEMPT_SECONDS) as client,
        contextlib.suppress(OSError),
    ):
        answer = client.post(request.scenario.path, request.body, headers)
    # Its workers may die, it may not: nobody would ever answer again.
    assert gateway.running, f"the gateway has ended:\n{gateway.output_tail()}"
    return request.add(Attempt(trace_id, sent, time.monotonic(), answer))


def settle(request: Request, gateways: Sequence[GatewayProcess]) -> bool:
    """Ask one gateway after the other until one answer settles it; False if none does in `SETTLE_SECONDS`."""
    end = time.monotonic() + SETTLE_SECONDS
    for gateway in itertools.cycle(gateways):
        if ask(gateway, request).settled:
            return True
        if time.monotonic() > end:
            return False
        time.sleep(_PAUSE_SECONDS)
    raise AssertionError("there is no gateway to ask")


def look_up(request: Request, gateways: Iterable[GatewayProcess]) -> None:
    """Note what `GET operations` says about a decide, once one of the gateways can tell."""
    path = f"/api/v1/operations/decide/{request.assignment_id}"
    end = time.monotonic() + SETTLE_SECONDS
    for gateway in itertools.cycle(gateways):
        with Client(gateway.host, gateway.port, headers=ADMIN, timeout=ATTEMPT_SECONDS) as client:
            try:
                answer = client.get(path)
            except OSError:
                answer = None
        if answer is not None and answer.status in (200, 404):
            outcome = json.loads(answer.body).get("outcome")
            request.stored_outcome = outcome["body"] if outcome else None
            return
        if time.monotonic() > end:
            return
        time.sleep(_PAUSE_SECONDS)
