"""Three NATS servers that keep streams together."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence

from gateway.devstack.nats_server import NatsServer, NatsServerError
from gateway.devstack.ports import PortReservation
from tests.support.waiting import wait_until

_START_SECONDS = 30.0


@contextlib.contextmanager
def nats_cluster(count: int = 3) -> Iterator[list[NatsServer]]:
    """So many servers of one cluster, each with a store of its own; healthy, and agreed on a leader."""
    with contextlib.ExitStack() as stack:
        routes = [stack.enter_context(PortReservation()) for _ in range(count)]
        others = ", ".join(json.dumps(f"nats-route://{route.address}") for route in routes)
        nodes = []
        for number, route in enumerate(routes):
            address = json.dumps(route.address)
            config = f"cluster {{\n  name: three\n  listen: {address}\n  routes: [{others}]\n}}"
            node = NatsServer(name=f"node-{number}", config=config)
            stack.callback(node.close)
            nodes.append(node)
        for node in nodes:
            node.start(wait=False)
        for node in nodes:
            node.wait_healthy(_START_SECONDS)
        wait_until(lambda: _has_leader(nodes[0]), _START_SECONDS, "the nodes choose no leader")
        yield nodes


def stream_leader(nodes: Sequence[NatsServer], stream: str) -> NatsServer | None:
    """The node that leads a stream, as any node that answers says."""
    for node in nodes:
        with contextlib.suppress(OSError, NatsServerError, KeyError):
            account = node.jsz("streams=true&accounts=true")["account_details"][0]
            for detail in account["stream_detail"]:
                if detail["name"] == stream:
                    leader = detail["cluster"]["leader"]
                    return next((one for one in nodes if one.name == leader), None)
    return None


def _has_leader(node: NatsServer) -> bool:
    with contextlib.suppress(OSError):
        return bool(node.jsz("").get("meta_cluster", {}).get("leader"))
    return False
