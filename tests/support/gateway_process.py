"""GatewayProcess: the gateway as its users start it, ``beamline-gateway serve`` with an environment.

A black box: what is known of it is its exit code, its output, its processes and what it answers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.ports import PortReservation
from tests.support import capture
from tests.support.canaries import SECRET
from tests.support.http_client import ADMIN, Answer, Client
from tests.support.leaks import MARK_VARIABLE
from tests.support.process_table import children_of
from tests.support.waiting import GENEROUS_SECONDS, wait_until

REPOSITORY: Final = Path(__file__).resolve().parents[2]

# The product is configured by the environment alone: what the developer's shell happens to hold must not
# reach it. These are what any Python program needs.
_INHERITED: Final = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "VIRTUAL_ENV",
    "COVERAGE_PROCESS_START",
)

#: Every setting that the tests' gateways have unless a test says otherwise.
BASE_ENVIRONMENT: Final[Mapping[str, str]] = {
    "AUTH_MODE": "headers",
    "TRUSTED_PROXIES": "127.0.0.1",
    "WEB_CONCURRENCY": "2",
    "GATEWAY_THREADS": "8",
    "LOG_LEVEL": "info",
}


_NATS_ACCOUNTS: Final = (
    "NATS_URL",
    "NATS_USER",
    "NATS_PASSWORD",
    "NATS_TOKEN",
    "NATS_CREDENTIALS",
    "NATS_TLS",
)


def _named(environment: Mapping[str, str | None], *prefixes: str) -> bool:
    """Whether a test sets any variable that begins so itself."""
    return any(name.startswith(prefixes) for name in environment)


class GatewayProcess:
    """One gateway on a free port that stays reserved; dies with the tests whatever happens.

    ``environment`` is laid over `BASE_ENVIRONMENT`; a value of None takes a variable away. ``start`` waits
    for ``/livez``, and for ``/readyz`` too unless told not to.

    It has secrets that carry a canary, and what it prints, counts and records is searched for canaries
    (`tests.support.capture`).
    """

    def __init__(
        self,
        nats_url: str | None = None,
        *,
        environment: Mapping[str, str | None] | None = None,
        command: str = "serve",
    ) -> None:
        self._port = PortReservation()
        self._folder = tempfile.TemporaryDirectory(prefix="gateway-under-test-")
        self.folder = Path(self._folder.name)
        self.output_path = self.folder / "output.log"
        self.command = command
        settings: dict[str, str | None] = dict(BASE_ENVIRONMENT)
        settings["GATEWAY_BIND"] = self._port.address
        self._counts_in: Path | None = self.folder / "metrics"
        if nats_url is not None:
            settings["NATS_URL"] = nats_url
        given = environment or {}
        # A server that asks for no credentials takes any.
        if nats_url is not None and "@" not in nats_url and not _named(given, *_NATS_ACCOUNTS):
            settings.update(NATS_USER="gateway", NATS_PASSWORD=SECRET)
        if not _named(given, "AUTH_MODE", "JWT_"):
            settings["JWT_SECRET"] = SECRET  # kept, and of no use where callers come by headers
        self._capture = capture.present
        self._owner = capture.present_test()
        self._exports = self._capture is not None and not _named(given, "OTEL_")
        if self._capture is not None and self._exports:
            settings.update(self._capture.exporting())
        if _named(given, "PROMETHEUS_MULTIPROC_DIR", "TMPDIR"):
            counts_in = given.get("PROMETHEUS_MULTIPROC_DIR") or given.get("TMPDIR")
            self._counts_in = None if counts_in is None else Path(counts_in)
        else:
            settings["PROMETHEUS_MULTIPROC_DIR"] = str(self._counts_in)
        settings.update(given)
        self.environment = {name: value for name, value in settings.items() if value is not None}
        self._child: Child | None = None

    # -- where --------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        return self._port.host

    @property
    def port(self) -> int:
        return self._port.port

    @property
    def url(self) -> str:
        """The base URL, without a slash at its end."""
        return f"http://{self._port.address}"

    def client(self, headers: Mapping[str, str] | None = ADMIN, timeout: float = 30.0) -> Client:
        """A client with ``headers`` on every request: by default an administrator of tenant ``acme``."""
        return Client(self.host, self.port, headers=headers or {}, timeout=timeout)

    # -- life ---------------------------------------------------------------------------------------

    def start(self, *, ready: bool = True, timeout: float = GENEROUS_SECONDS) -> None:
        """Start and wait for ``/livez``, and for ``/readyz`` if ``ready``."""
        self.spawn()
        self._wait_for("/livez", timeout)
        if ready:
            self._wait_for("/readyz", timeout)

    def spawn(self) -> None:
        """Start without waiting for anything."""
        assert not self.running, "the gateway is running already"
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment[MARK_VARIABLE] = os.environ.get(MARK_VARIABLE, "")
        environment["PYTHONPATH"] = str(REPOSITORY)
        environment["PYTHONUNBUFFERED"] = "1"
        environment.update(self.environment)
        with self._open_output() as output:
            self._child = child_process.spawn(
                [sys.executable, "-m", "gateway.cli", self.command],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
            )

    def _open_output(self) -> IO[bytes]:
        """Where both of its output streams go."""
        return self.output_path.open("ab")

    def terminate(self) -> None:
        """SIGTERM to the master, as a supervisor does; returns at once (see `wait`)."""
        child = self._running_child()
        self._show_metrics()
        child.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = GENEROUS_SECONDS) -> int:
        """The exit code, once it has ended. Fails after ``timeout`` seconds."""
        assert self._child is not None, "the gateway was never started"
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"the gateway still runs after {timeout} s; its output ends:\n{self.output_tail()}"
            ) from None

    def kill(self) -> None:
        """SIGKILL to the master and its workers."""
        if self._child is not None:
            self._show_metrics()
            child_process.kill(self._child)

    def close(self) -> None:
        """End it in order (SIGKILL if it does not), give the port back, remove its folder."""
        if self._child is not None:
            self._show_metrics()
            child_process.terminate(self._child, timeout=GENEROUS_SECONDS)
        self._show_log()
        self._port.close()
        self._folder.cleanup()

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
        if error is not None:
            error.add_note(f"The gateway's output ends:\n{self.output_tail()}")
        self.close()

    # -- what is seen from outside ------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int:
        """gunicorn's master."""
        return self._running_child().pid

    def workers(self) -> list[int]:
        """The pids of gunicorn's workers that live now."""
        return children_of(self.pid)

    def wait_for_workers(self, count: int, *, without: frozenset[int] = frozenset()) -> list[int]:
        """Wait until exactly ``count`` workers live and none of ``without`` is among them."""

        def complete() -> list[int]:
            pids = self.workers()
            return pids if len(pids) == count and not without & set(pids) else []

        return wait_until(complete, message=lambda: f"workers are {self.workers()}")

    def get(self, path: str) -> Answer | None:
        """GET without credentials on a connection of its own; None if nobody listens."""
        with self.client(headers={}, timeout=5.0) as client:
            try:
                return client.get(path)
            except OSError:
                return None

    def output(self) -> str:
        """All that it has printed, on both streams."""
        with contextlib.suppress(OSError):
            return self.output_path.read_text(encoding="utf-8", errors="replace")
        return ""

    def output_tail(self, lines: int = 15) -> str:
        """The end of the output, for messages."""
        return "\n".join(line[:400] for line in self.output().splitlines()[-lines:])

    # -- inside -------------------------------------------------------------------------------------

    def _wait_for(self, path: str, timeout: float) -> None:
        end = time.monotonic() + timeout
        last: Answer | None = None
        while time.monotonic() < end:
            if not self.running:
                raise AssertionError(
                    f"the gateway ended with {self.wait()} before {path} answered:\n{self.output_tail()}"
                )
            last = self.get(path)
            if last is not None and last.status == 200:
                return
            time.sleep(0.02)
        raise AssertionError(
            f"{path} is not 200 after {timeout} s (last: {last});"
            f" the gateway's output ends:\n{self.output_tail()}"
        )

    def _show_metrics(self) -> None:
        """To the capture, while they are there: a gateway that ends in order takes them along."""
        if self._capture is not None and self._counts_in is not None:
            self._capture.saw_metric_files(self._counts_in, self._owner)

    def _show_log(self) -> None:
        in_order = self._child is not None and self._child.poll() == 0 and self._exports
        if self._capture is not None:
            self._capture.saw_log(self.output().encode(), self._owner, in_order=in_order)

    def _running_child(self) -> Child:
        assert self._child is not None and self._child.poll() is None, (
            f"the gateway does not run; its output ends:\n{self.output_tail()}"
        )
        return self._child
