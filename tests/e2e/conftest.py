"""What the e2e tests share: a gateway with the reference Router, and one without, for tests that kill nothing.

Tests that stop, freeze or starve something start their own (`tests.support.stacks.running`).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.http_client import Client
from tests.support.idempotency_fleet import SHORT_LEASE, Fleet, running_fleet
from tests.support.nats_tap import NatsTap
from tests.support.stacks import Running, running


@pytest.fixture(scope="session")
def stack() -> Iterator[Running]:
    """NATS, the strict reference Router and a gateway. Shared: kill nothing, use ids of your own."""
    with running("stack", reference_router=True) as started:
        yield started


@pytest.fixture(scope="session")
def routerless() -> Iterator[Running]:
    """NATS and a gateway; tests bring their own Router and take it away. Shared: kill nothing.

    Enough threads that fifty requests fit into one worker, however the kernel spreads them.
    """
    with running("routerless", {"GATEWAY_THREADS": "64"}) as started:
        yield started


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """Two instances on one NATS, no Router. Shared: kill nothing, use ids of your own."""
    with running_fleet("fleet") as started:
        yield started


@pytest.fixture(scope="session")
def leasing() -> Iterator[Fleet]:
    """A fleet with a short deadline and lease, whose workers may be frozen and killed. Shared: mend what you break."""
    with running_fleet("leasing", SHORT_LEASE) as started:
        yield started


@pytest.fixture
def client(stack: Running) -> Iterator[Client]:
    """An administrator of tenant ``acme`` at the shared stack."""
    with stack.gateway.client() as client:
        yield client


@pytest.fixture
def anonymous(stack: Running) -> Iterator[Client]:
    """A client of the shared stack without any credentials."""
    with stack.gateway.client(headers={}) as client:
        yield client


@pytest.fixture
def tap(stack: Running) -> Iterator[NatsTap]:
    """All that travels through the shared stack's NATS during the test."""
    with NatsTap(stack.nats.url) as tap:
        yield tap


@pytest.fixture(autouse=True)
def shared_gateways_live_on(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that kills what others share is told so itself, not the tests after it."""
    yield
    for name in {"stack", "routerless"} & set(request.fixturenames):
        started: Running = request.getfixturevalue(name)
        assert started.gateway.running, f"{name} has died:\n{started.gateway.output_tail()}"
        assert started.nats.running, f"NATS of {name} has died:\n{started.nats.log_tail()}"
