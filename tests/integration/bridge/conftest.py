"""A real NATS server for each test, and bridges that are closed at its end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.bridge_log import nothing_forgotten
from tests.support.bridge_running import RunningBridges
from tests.support.nats_session import NatsSession

__all__ = ["nothing_forgotten"]


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A NATS server of the test's own."""
    with NatsServer() as running:
        yield running


@pytest.fixture
def absent_server() -> Iterator[NatsServer]:
    """A NATS server that has not been started yet; its port is known."""
    server = NatsServer()
    yield server
    server.close()


@pytest.fixture
def nats(server: NatsServer) -> Iterator[NatsSession]:
    """A connection of the test's own."""
    with NatsSession(server.url) as session:
        yield session


@pytest.fixture
def bridges(nothing_forgotten: None) -> Iterator[RunningBridges]:
    """Makes bridges; closed before the server goes, and before the log is looked at."""
    made = RunningBridges()
    yield made
    made.close()
