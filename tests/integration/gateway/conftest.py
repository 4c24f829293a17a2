"""The whole app over a real bridge, a real NATS server and the strict reference Router, in one process.

pytest-flask makes its ``client`` from the fixture ``app``. The server and the Router are shared by the whole
folder: tests use ids of their own and kill nothing; those that stop something start their own (`wired`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask

from bridge import Bridge, BridgeConfig
from gateway.devstack.nats_server import NatsServer
from gateway.devstack.providers import Catalogue
from gateway.devstack.router import ReferenceRouter
from tests.integration.gateway.wired import Wired, wired
from tests.support.nats_tap import NatsTap
from tests.support.waiting import GENEROUS_SECONDS


@pytest.fixture(scope="package")
def nats() -> Iterator[NatsServer]:
    with NatsServer(name="gateway-integration") as server:
        yield server


@pytest.fixture(scope="package")
def router(nats: NatsServer) -> Iterator[None]:
    """The reference Router; listening when it is asked for."""
    reference = ReferenceRouter(Catalogue.from_environ({}))
    services = (reference.decide, reference.hear_acks, reference.hear_results)
    bridge = Bridge(BridgeConfig(servers=(nats.url,), name="router"), services=services)
    bridge.start()
    assert bridge.wait_ready(GENEROUS_SECONDS)
    yield
    bridge.close(5.0)


@pytest.fixture(scope="package")
def shared(nats: NatsServer, router: None) -> Iterator[Wired]:
    """One gateway for all tests that stop nothing."""
    with wired(nats.url) as gateway:
        gateway.until_ready()
        yield gateway


@pytest.fixture
def app(shared: Wired) -> Flask:
    """For pytest-flask."""
    shared.spans()  # what the test before left
    return shared.app


@pytest.fixture
def tap(nats: NatsServer) -> Iterator[NatsTap]:
    """All that travels through the server during the test."""
    with NatsTap(nats.url) as tap:
        yield tap
