"""What tests start together: a NATS server, a gateway before it, and perhaps the reference Router behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.devstack.nats_server import NatsServer
from tests.support.gateway_process import GatewayProcess
from tests.support.reference_router import ReferenceRouter


@dataclass(frozen=True)
class Running:
    """A gateway and the NATS server behind it."""

    gateway: GatewayProcess
    nats: NatsServer


@contextlib.contextmanager
def running(
    name: str,
    environment: Mapping[str, str | None] | None = None,
    *,
    reference_router: bool = False,
) -> Iterator[Running]:
    """Start all of it, ready to be asked; end all of it afterwards."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name=name))
        if reference_router:
            stack.enter_context(ReferenceRouter(nats))
        gateway = stack.enter_context(GatewayProcess(nats.url, environment=environment))
        yield Running(gateway, nats)
