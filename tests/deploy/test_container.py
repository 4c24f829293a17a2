"""The Dockerfile: its steps work, and what comes of them runs as an orchestrator would have it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation
from tests.support.deploy_files import DOCKERFILE
from tests.support.deploy_image import Stage, build, command, healthcheck
from tests.support.documents import USAGE, usage_body
from tests.support.http_client import ADMIN, Client
from tests.support.process_table import children_of, is_alive
from tests.support.waiting import GENEROUS_SECONDS, wait_until


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return build(tmp_path_factory.mktemp("image"))


class Container:
    """The image, running; ``init`` is its process 1 as this machine sees it."""

    def __init__(self, image: Stage, nats: NatsServer, log: Path) -> None:
        self.port = PortReservation()
        self.environment = {
            "GATEWAY_BIND": self.port.address,
            "NATS_URL": nats.url,
            "AUTH_MODE": "headers",
            "TRUSTED_PROXIES": "127.0.0.1",
        }
        self._log = log
        with log.open("wb") as output:
            self.child: Child = child_process.spawn(
                command(image, self.environment), stdout=output, env={}
            )
        self.init = 0

    def client(self) -> Client:
        return Client(self.port.host, self.port.port, headers=ADMIN)

    def __enter__(self) -> Self:
        try:
            wait_until(self._ready_or_gone, GENEROUS_SECONDS, self._log.read_text)
            assert self.child.poll() is None, self._log.read_text()
            (self.init,) = children_of(self.child.pid)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        child_process.kill(self.child)
        self.port.close()

    def _ready_or_gone(self) -> bool:
        with self.client() as client, contextlib.suppress(OSError):
            return client.get("/readyz").status == 200
        return self.child.poll() is not None


@pytest.fixture(scope="module")
def container(image: Stage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """Shared by the tests that end nothing."""
    log = tmp_path_factory.mktemp("container") / "log"
    with NatsServer(name="container") as nats, Container(image, nats, log) as started:
        yield started


def test_the_linter_finds_nothing() -> None:
    ran = subprocess.run(
        ["hadolint", "--failure-threshold", "style", DOCKERFILE],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout


def test_the_image_serves_on_a_read_only_root_as_a_number(container: Container) -> None:
    with container.client() as client:
        assert client.post(USAGE, usage_body()).status == 202
    for pid in (container.init, *children_of(container.init)):
        status = dict(
            line.split(":\t", 1)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
            if ":\t" in line
        )
        assert int(status["CapEff"], 16) == 0
    assert len(children_of(container.init)) == 2


def test_the_metrics_of_all_workers_are_there(container: Container) -> None:
    """They are files in /tmp, the only place that can be written."""
    with container.client() as client:
        assert b"beamline_gateway_cp_requests_total" in client.get("/metrics").body


def test_the_healthcheck_tells_one_that_serves_from_one_that_is_gone(
    container: Container, image: Stage
) -> None:
    asked = subprocess.run(healthcheck(image, container.environment), timeout=60, check=False)
    assert asked.returncode == 0
    with PortReservation() as nobody:
        gone = {**container.environment, "GATEWAY_BIND": nobody.address}
        asked = subprocess.run(
            healthcheck(image, gone), timeout=60, check=False, stderr=subprocess.DEVNULL
        )
    assert asked.returncode == 1


def test_the_image_holds_no_tool_to_install_anything_with(image: Stage) -> None:
    installed = image.at("/opt/beamline-gateway/bin")
    assert (installed / "beamline-gateway").exists()
    assert not list(installed.glob("pip*"))
    assert not list(image.files.rglob("pytest"))


@pytest.mark.parametrize("arguments", [("--version",), ("settings",), ("apikeys", "--help")])
def test_a_command_takes_the_place_of_serve(image: Stage, arguments: tuple[str, ...]) -> None:
    environment = {"AUTH_MODE": "headers", "TRUSTED_PROXIES": "10.0.0.0/8"}
    ran = subprocess.run(
        command(image, environment, *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout


def test_a_stop_drains_and_leaves_nobody(image: Stage, tmp_path: Path) -> None:
    """As process 1: nobody else collects its children, and it gets only signals that it asked for."""
    with (
        NatsServer(name="stopped") as nats,
        Container(image, nats, tmp_path / "log") as container,
    ):
        workers = children_of(container.init)
        os.kill(container.init, signal.SIGTERM)
        assert container.child.wait(GENEROUS_SECONDS) == 0
        assert [pid for pid in workers if is_alive(pid)] == []
