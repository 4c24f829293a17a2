"""What is measured, running: NATS, a Router and a collector that cost next to nothing, and the servers before them."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.devstack import child_process
from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation
from tests.support.process_table import children_of
from tests.support.waiting import wait_until

REPOSITORY: Final = Path(__file__).resolve().parents[2]
WORKERS: Final = 2
THREADS: Final = 32
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_INHERITED: Final = ("PATH", "HOME", "LANG", "TMPDIR", "VIRTUAL_ENV")
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Server:
    """A server that answers HTTP, and what it costs."""

    name: str
    port: int
    master: child_process.Child

    def workers(self) -> list[int]:
        """The pids that do the work."""
        return children_of(self.master.pid) or [self.master.pid]

    def cpu_seconds(self) -> float:
        """Processor time of the workers until now."""
        return sum(_stat(pid)[0] for pid in self.workers())

    def memory_bytes(self) -> int:
        """The largest worker's resident memory."""
        return max(_stat(pid)[1] for pid in self.workers())


class Site:
    """NATS, Router, collector, an API key; servers are started on it. See the module's docstring."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        self.nats = stack.enter_context(NatsServer(name="bench"))
        self._keys = self.folder / "keys.json"
        self.key = self._make_key("service")
        self.weak_key = self._make_key("viewer")
        self._module("responder", "127.0.0.1", str(self.nats.port))
        sink = stack.enter_context(PortReservation())
        self._module("otlp_sink", str(sink.port))
        self.collector = f"http://127.0.0.1:{sink.port}"
        self._collector_port = sink.port
        wait_until(lambda: self.nats.varz()["connections"] == 1, _START_SECONDS)

    def span_bytes(self) -> int:
        """How many bytes of spans have come to the collector."""
        connection = http.client.HTTPConnection("127.0.0.1", self._collector_port, timeout=5)
        connection.request("GET", "/")
        with contextlib.closing(connection):
            return int(connection.getresponse().read())

    def gateway(self, name: str = "gateway", **environment: str) -> Server:
        """``beamline-gateway serve``, everything on but traces: `collector` turns them on."""
        given = {
            "WEB_CONCURRENCY": str(WORKERS),
            "GATEWAY_THREADS": str(THREADS),
            "APIKEYS_FILE": str(self._keys),
            "AUDIT_LOG_FILE": str(self.folder / "audit.log"),
            **environment,
        }
        command = [sys.executable, "-m", "gateway.cli", "serve"]
        return self._serve(name, command, given, bind="GATEWAY_BIND", ready="/readyz")

    def gunicorn(self, name: str, app: str) -> Server:
        """A plain Flask app under the same gunicorn."""
        command = [
            *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread"),
            *("--workers", str(WORKERS), "--threads", str(THREADS), "--keep-alive", "75"),
            *("--bind", "{bind}", app),
        ]
        return self._serve(name, command, {}, ready="/livez")

    def fastapi(self, name: str = "fastapi", **environment: str) -> Server:
        """The peer under uvicorn."""
        command = [
            *(sys.executable, "-m", "uvicorn", "tests.bench.peers.fastapi_peer:app"),
            *("--workers", str(WORKERS), "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning", "--port", "{port}"),
        ]
        metrics = Path(tempfile.mkdtemp(dir=self.folder))
        given = {
            "BENCH_KEY_DIGEST": hashlib.sha256(self.key.encode()).hexdigest(),
            "PROMETHEUS_MULTIPROC_DIR": str(metrics),
            **environment,
        }
        return self._serve(name, command, given, ready="/livez")

    def stop(self, server: Server) -> None:
        """Stop one before the site ends."""
        if not child_process.terminate(server.master, _STOP_SECONDS):
            child_process.kill(server.master)

    def _serve(
        self,
        name: str,
        command: list[str],
        environment: Mapping[str, str],
        *,
        bind: str | None = None,
        ready: str,
    ) -> Server:
        reserved = self._stack.enter_context(PortReservation())
        given = dict(environment) | ({bind: reserved.address} if bind else {})
        words = [word.format(bind=reserved.address, port=reserved.port) for word in command]
        child = self._start(name, words, given)
        server = Server(name, reserved.port, child)

        def answers() -> bool:
            assert child.poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
            return _status(reserved.port, ready) == 200

        wait_until(answers, _START_SECONDS, lambda: f"{name} does not get ready")
        return server

    def _module(self, name: str, *arguments: str) -> None:
        self._start(name, [sys.executable, "-m", f"tests.bench.peers.{name}", *arguments], {})

    def _start(
        self, name: str, command: list[str], environment: Mapping[str, str]
    ) -> child_process.Child:
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        log = self._stack.enter_context((self.folder / f"{name}.log").open("wb"))
        child = child_process.spawn(
            command,
            stdout=log,
            stderr=log,
            env={**inherited, "NATS_URL": self.nats.url, **environment},
            cwd=REPOSITORY,
        )
        self._stack.callback(child_process.kill, child)
        return child

    def _make_key(self, role: str) -> str:
        environment = {
            **{key: os.environ[key] for key in _INHERITED if key in os.environ},
            "APIKEYS_FILE": str(self._keys),
            "AUDIT_LOG_FILE": str(self.folder / "audit.log"),
        }
        made = subprocess.run(
            [
                *(sys.executable, "-m", "gateway.cli", "apikeys", "create"),
                *("--tenant", "acme", "--role", role),
            ],
            env=environment,
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        found = re.search(r"blk_[0-9a-z]{8}_\S+", made.stdout)
        assert found is not None, made.stdout
        return found[0]


@contextlib.contextmanager
def running() -> Iterator[Site]:
    """A site; everything on it ends with it."""
    with contextlib.ExitStack() as stack:
        yield Site(stack)


def _status(port: int, path: str) -> int | None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return None
    finally:
        connection.close()


def _stat(pid: int) -> tuple[float, int]:
    """Processor seconds and resident bytes of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * os.sysconf(
        "SC_PAGE_SIZE"
    )
