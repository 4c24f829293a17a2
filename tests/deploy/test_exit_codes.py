"""The exit codes of `beamline-gateway serve` that docs/OPERATIONS.md explains, each brought about."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.gateway_process import GatewayProcess


@contextlib.contextmanager
def spawned(**environment: str) -> Iterator[GatewayProcess]:
    gateway = GatewayProcess(environment=environment)
    with contextlib.closing(gateway):
        gateway.spawn()
        yield gateway


def test_0_it_ended_in_order() -> None:
    gateway = GatewayProcess()
    with contextlib.closing(gateway):
        gateway.start(ready=False)
        gateway.terminate()
        assert gateway.wait() == 0


def test_1_its_address_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = "{}:{}".format(*other.getsockname())
        with spawned(GATEWAY_BIND=address) as gateway:
            assert gateway.wait() == 1
            assert address.rpartition(":")[2] in gateway.output()


@pytest.mark.parametrize("name", ["NATS_REPLICAS", "LOG_LEVEL", "GATEWAY_THREADS"])
def test_2_its_environment_is_wrong(name: str) -> None:
    with spawned(**{name: "nonsense"}) as gateway:
        assert gateway.wait() == 2
        assert name in gateway.output()


def test_3_a_worker_cannot_start(tmp_path: Path) -> None:
    no_certificate = tmp_path / "ca.pem"
    no_certificate.write_text("nothing of the kind")
    with spawned(NATS_TLS_CA_FILE=str(no_certificate)) as gateway:
        assert gateway.wait() == 3
