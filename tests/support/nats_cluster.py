"""Three NATS servers that keep streams together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation

NODES = 3


@contextlib.contextmanager
def nats_cluster() -> Iterator[list[NatsServer]]:
    """Start them; until they agree on a leader, requests to JetStream are refused or lost."""
    with contextlib.ExitStack() as stack:
        routes = [stack.enter_context(PortReservation()) for _ in range(NODES)]
        peers = ", ".join(f'"nats://{route.address}"' for route in routes)
        nodes = [
            NatsServer(
                name=f"node-{number}",
                config=f'cluster {{ name: c, listen: "{route.address}", routes: [{peers}] }}',
            )
            for number, route in enumerate(routes)
        ]
        for node in nodes:
            stack.callback(node.close)
            node.start(wait=False)
        for node in nodes:
            node.wait_healthy()
        yield nodes
