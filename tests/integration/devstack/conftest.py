"""Real NATS for each test, and the devstack's processes on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.integration.devstack.processes import ServiceProcess
from tests.support.nats_session import NatsSession

EXEC_STREAM = "BEAMLINE_EXEC"
EXEC_SUBJECTS = ["caf.exec.assign.v1", "caf.exec.assign.v1.ack", "caf.exec.result.v1"]


@pytest.fixture
def server() -> Iterator[NatsServer]:
    """A NATS server of the test's own."""
    with NatsServer() as running:
        yield running


@pytest.fixture
def nats(server: NatsServer) -> Iterator[NatsSession]:
    """A connection of the test's own."""
    with NatsSession(server.url) as session:
        yield session


@pytest.fixture
def exec_stream(nats: NatsSession) -> str:
    """The stream that the gateway would make."""
    nats.call(nats.jetstream.add_stream(name=EXEC_STREAM, subjects=EXEC_SUBJECTS))
    return EXEC_STREAM


@pytest.fixture
def router(server: NatsServer, tmp_path: Path) -> Iterator[ServiceProcess]:
    """The reference Router, listening."""
    with ServiceProcess("router", server, tmp_path) as process:
        process.wait_for_output("listening to")
        yield process


@pytest.fixture
def worker(server: NatsServer, exec_stream: str, tmp_path: Path) -> Iterator[ServiceProcess]:
    """The reference worker, on the stream."""
    with ServiceProcess("worker", server, tmp_path) as process:
        process.wait_for_output("taking assignments")
        yield process
