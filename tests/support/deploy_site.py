"""Site: the compose file's NATS nodes, gateways and helpers as processes of this machine.

Configuration files and environments are the delivered ones; only addresses and folders are changed. Images, networks
and mounts are not.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.nats_server import find_binary
from gateway.devstack.ports import PortReservation
from tests.support.deploy_files import DEPLOY, compose_variables, service_environment
from tests.support.gateway_process import REPOSITORY, GatewayProcess
from tests.support.operator_command import Ended, beamline_gateway
from tests.support.waiting import wait_until

NODES: Final = ("nats-1", "nats-2", "nats-3")
_CLUSTER_SECONDS: Final = 60.0
_ADDRESS: Final = re.compile(r"nats://nats-\d:4222(,nats://nats-\d:4222)*")
_PORTS: Final = ("client", "monitor", "cluster")


class Node:
    """One NATS server with the delivered configuration."""

    def __init__(self, name: str, folder: Path, variables: Mapping[str, str]) -> None:
        self.name = name
        self.ports = {kind: PortReservation() for kind in _PORTS}
        self._folder = folder / name
        self._environment = service_environment(name, variables)
        self._child: Child | None = None

    @property
    def url(self) -> str:
        return f"nats://{self.ports['client'].address}"

    def start(self, nodes: Mapping[str, Node]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in (DEPLOY / "nats").glob("*.conf"):
            (self._folder / path.name).write_text(self._here(path.read_text(), nodes))
        with (self._folder / "log").open("ab") as output:
            self._child = child_process.spawn(
                [str(find_binary()), "--config", str(self._folder / "nats.conf")],
                stdout=output,
                env=self._environment,
            )

    def healthy(self) -> bool:
        """What the compose file's healthcheck asks."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection(self.ports["monitor"].address, timeout=2)
            with contextlib.closing(connection):
                connection.request("GET", "/healthz")
                return connection.getresponse().status == http.client.OK
        return False

    @contextlib.contextmanager
    def lost(self) -> Iterator[None]:
        """Frozen: nothing comes from it, as from a machine that is gone."""
        assert self._child is not None
        child_process.freeze(self._child)
        try:
            yield
        finally:
            child_process.send(self._child, signal.SIGCONT)
            wait_until(self.healthy, _CLUSTER_SECONDS, self.log)

    def close(self) -> None:
        if self._child is not None:
            child_process.kill(self._child)
        for port in self.ports.values():
            port.close()

    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")[-2000:]

    def _here(self, text: str, nodes: Mapping[str, Node]) -> str:
        changes = {
            "port: 4222": f"listen: {self.ports['client'].address}",
            "http_port: 8222": f"http: {self.ports['monitor'].address}",
            "port: 6222": f"listen: {self.ports['cluster'].address}",
            "store_dir: /data": f"store_dir: {self._folder / 'data'}",
        }
        for name, node in nodes.items():
            changes[f"nats://{name}:6222"] = f"nats://{node.ports['cluster'].address}"
        for old, new in changes.items():
            text = re.sub(rf"(?<![\w_]){re.escape(old)}\b", new, text)
        return text


class Site:
    """See the module's docstring."""

    def __init__(self, folder: Path, changes: Mapping[str, str | None]) -> None:
        self.variables = {name: f"password-of-{name.lower()}" for name in compose_variables()}
        self.nodes = {name: Node(name, folder, self.variables) for name in NODES}
        self.changes = changes
        self.gateways: tuple[GatewayProcess, ...] = ()

    def environment(self, service: str) -> dict[str, str | None]:
        """A service's environment, with the addresses of this machine."""
        found = service_environment(service, self.variables)
        urls = ",".join(node.url for node in self.nodes.values())
        here = {name: _ADDRESS.sub(urls, value) for name, value in found.items()}
        # Of the base environment of tests; nobody has a collector here.
        absent = {"TRUSTED_PROXIES": None, "OTEL_EXPORTER_OTLP_ENDPOINT": None}
        return {**here, **absent, **self.changes}

    def operator(self, *arguments: str) -> Ended:
        """``docker compose run --rm operator …``."""
        environment = {k: v for k, v in self.environment("operator").items() if v is not None}
        return beamline_gateway(*arguments, environment=environment)

    @contextlib.contextmanager
    def reference(self, service: str) -> Iterator[None]:
        """One of the services of the profile ``demo``."""
        environment = {k: v for k, v in self.environment(service).items() if v is not None}
        module = f"gateway.devstack.{service.removeprefix('reference-')}"
        with tempfile.TemporaryFile() as output:
            child = child_process.spawn(
                [sys.executable, "-m", module],
                stdout=output,
                env={"PYTHONPATH": str(REPOSITORY), **environment},
            )
            try:
                yield
            finally:
                child_process.terminate(child, 10)


@contextlib.contextmanager
def running_site(folder: Path, changes: Mapping[str, str | None]) -> Iterator[Site]:
    """Start the nodes and both gateways, in the order of the compose file. ``changes`` are laid over environments."""
    site = Site(folder, changes)
    with contextlib.ExitStack() as stack:
        for node in site.nodes.values():
            stack.callback(node.close)
            node.start(site.nodes)
        for node in site.nodes.values():
            wait_until(node.healthy, _CLUSTER_SECONDS, node.log)
        for service in ("gateway-a", "gateway-b"):
            gateway = GatewayProcess(environment=site.environment(service))
            stack.callback(gateway.close)
            # Alive, as the healthcheck asks: without any key yet there is no bucket of keys to be ready with.
            gateway.start(ready=False)
            site.gateways += (gateway,)
        yield site
