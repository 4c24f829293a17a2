"""``beamline-gateway dev``: NATS, the reference Router and worker, and the gateway, as one command.

Starts each as a process of its own, merges their logs, waits until the gateway says that it is ready and
prints requests to paste. Ctrl-C or SIGTERM ends everything in order (a second one at once) with status 0;
when one of them ends by itself, the stack says which, ends the others and returns 1. If the stack itself
is killed, the kernel ends its processes.

State (streams, buckets) is kept in ``.devstack`` in the current folder unless told otherwise, and used
again by the next start. Everything else is configured by the environment as for ``serve``, but for the
NATS connection, which is the stack's own, and the keys, which are made for each start unless
``APIKEYS_FILE`` or another ``AUTH_MODE`` is set (`gateway.devstack.demo_access`).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TextIO

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.contract import subjects
from gateway.devstack.demo_access import demo_access
from gateway.devstack.examples import welcome
from gateway.devstack.merged_log import MergedLog
from gateway.devstack.nats_server import NatsServer, NatsServerError
from gateway.devstack.ports import LOOPBACK, PortReservation
from gateway.devstack.premises import StackError, locked_folder, nats_server, reserved_address

DEFAULT_BIND: Final = "127.0.0.1:8080"
DEFAULT_STATE: Final = Path(".devstack")

_READY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.1
_PROBE_SECONDS: Final = 1.0
_SERVICE_END_SECONDS: Final = 5.0
_GATEWAY_END_SECONDS: Final = 20.0
_LAST_WORDS_SECONDS: Final = 1.0
_NATS_BANNER: Final = re.compile(r"\[INF\]( *$| [ |-])")
_OPERATORS: Final = ("NATS_URL", "APIKEYS_FILE", "AUDIT_LOG_FILE")
"""What operators' commands must know of this stack."""
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Running:
    """Where a stack is."""

    gateway_url: str
    nats_url: str


class _AskedToEnd(Exception):
    """A signal came, or nobody reads our output any more."""


def run_dev(
    bind: str = DEFAULT_BIND,
    *,
    state: Path = DEFAULT_STATE,
    nats_port: int = 0,
    out: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run the whole stack until it is told to end; the exit status (see the module's docstring).

    ``bind`` is ``host:port`` for the gateway, port 0 for any free one; ``nats_port`` likewise. Must be
    called on the main thread: it listens to signals while it runs.
    """
    log = MergedLog(out or sys.stdout)
    signals: queue.SimpleQueue[int] = queue.SimpleQueue()  # safe to fill from a signal handler
    before = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in before.items():
        if not (number == signal.SIGHUP and handler is signal.SIG_IGN):  # nohup
            signal.signal(number, lambda number, _: signals.put(number))
    try:
        with (
            locked_folder(state.absolute()) as folder,
            reserved_address(bind) as address,
            nats_server(folder / "nats", nats_port) as nats,
        ):
            stack = _Stack(log, signals, nats, address, dict(environ or os.environ))
            status = _run(stack, folder, log)
    except StackError as error:
        log.say(f"beamline-gateway dev: {error}")
        return 1
    else:
        return status
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def stack_running(state: Path, out: TextIO, environ: Mapping[str, str]) -> Iterator[Running]:
    """The whole stack on free ports for as long as the block runs; what it says goes to ``out``.

    Raises StackError if it does not start.
    """
    with (
        locked_folder(state.absolute()) as folder,
        reserved_address(f"{LOOPBACK}:0") as address,
        nats_server(folder / "nats", 0) as nats,
    ):
        stack = _Stack(MergedLog(out), queue.SimpleQueue(), nats, address, dict(environ))
        try:
            try:
                stack.start(folder)
            except NatsServerError as error:
                raise StackError(str(error)) from None
            yield Running(f"http://{address.address}", nats.url)
        finally:
            stack.end()


def _run(stack: _Stack, folder: Path, log: MergedLog) -> int:
    try:
        stack.start(folder)
        while True:
            stack.breathe()
    except _AskedToEnd:
        log.say("Ending …")
        return 0
    except (StackError, NatsServerError) as error:
        log.say(f"beamline-gateway dev: {error}; ending the others …")
        return 1
    finally:
        stack.end()


class _Stack:
    """The processes of one run, in the order of their start."""

    def __init__(
        self,
        log: MergedLog,
        signals: queue.SimpleQueue[int],
        nats: NatsServer,
        address: PortReservation,
        environ: dict[str, str],
    ) -> None:
        self._log = log
        self._signals = signals
        self._nats = nats
        self._address = address
        self._environ = _environment(environ, nats.url, address.address)
        self._children: dict[str, Child] = {}
        self._at_once = False

    def start(self, folder: Path) -> None:
        """Start everything, each when what it needs is there, and say how to use it."""
        with self._log.channel("nats", noise=_NATS_BANNER) as output:
            self._nats.start(output=output)
        access = demo_access(self._environ, folder)
        self._environ |= access.environment
        self._environ["AUDIT_LOG_FILE"] = self._environ.get("AUDIT_LOG_FILE") or str(
            folder / "audit.log"
        )
        self._spawn("router", "gateway.devstack.router")
        self._wait_for(self._router_listens, "the Router to listen")
        self._spawn("gateway", "gateway.cli", "serve", death_signal=signal.SIGTERM)
        self._wait_for(self._gateway_is_ready, "the gateway to be ready")
        self._spawn("worker", "gateway.devstack.worker")  # its stream is the gateway's
        self._log.say(
            welcome(
                base_url=f"http://{self._reachable}",
                nats_url=self._nats.url,
                monitor_url=self._nats.monitor_url,
                state=folder,
                access=access,
                operators={
                    name: self._environ[name] for name in _OPERATORS if name in self._environ
                },
                started_ms=time.time_ns() // 1_000_000,
            )
        )

    def breathe(self) -> None:
        """Wait a moment. Raises _AskedToEnd on a signal, StackError when a process has ended."""
        with contextlib.suppress(queue.Empty):
            self._signals.get(timeout=_POLL_SECONDS)
            raise _AskedToEnd
        if self._log.broken:
            raise _AskedToEnd
        if not self._nats.running:
            raise StackError("nats ended unexpectedly")
        for name, child in self._children.items():
            if (status := child.poll()) is not None:
                raise StackError(f"{name} ended unexpectedly ({_in_words(status)})")

    def end(self) -> None:
        """End what runs, the last one started first; at once if a second signal comes."""
        for name, child in reversed(self._children.items()):
            patience = _GATEWAY_END_SECONDS if name == "gateway" else _SERVICE_END_SECONDS
            self._end(name, child, patience)
        self._nats.stop()
        self._log.finish(_LAST_WORDS_SECONDS)

    # -- inside -------------------------------------------------------------------------------------

    def _spawn(
        self,
        name: str,
        module: str,
        *arguments: str,
        death_signal: signal.Signals = signal.SIGKILL,
    ) -> None:
        with self._log.channel(name) as output:
            self._children[name] = child_process.spawn(
                [sys.executable, "-m", module, *arguments],
                stdout=output,
                env=self._environ,
                death_signal=death_signal,
            )

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + _READY_SECONDS
        while not condition():
            if time.monotonic() > end:
                raise StackError(f"waited {_READY_SECONDS:.0f} s in vain for {what}")
            self.breathe()

    def _end(self, name: str, child: Child, patience: float) -> None:
        child_process.send(child, signal.SIGTERM)
        end = time.monotonic() + patience
        while child.poll() is None:
            with contextlib.suppress(queue.Empty):
                self._signals.get(timeout=_POLL_SECONDS)
                self._at_once = True
            if self._at_once or time.monotonic() > end:
                self._log.say(f"{name} is killed")
                break
        child_process.kill(child)

    def _router_listens(self) -> bool:
        connections = self._nats.connz("subs=true").get("connections", [])
        return any(
            subjects.DECIDE in (connection.get("subscriptions_list") or ())
            for connection in connections
        )

    def _gateway_is_ready(self) -> bool:
        # Any worker may answer, so all of them must be there: one connection each, and the Router's.
        workers = self._environ["WEB_CONCURRENCY"]
        wanted = 1 + (int(workers) if workers.isdecimal() else 1)
        if self._nats.connz("limit=1").get("total", 0) < wanted:
            return False
        connection = http.client.HTTPConnection(self._reachable, timeout=_PROBE_SECONDS)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/readyz")
            return connection.getresponse().status == http.client.OK
        return False

    @property
    def _reachable(self) -> str:
        """Where the gateway is reached from this machine, whatever it is bound to."""
        anywhere = {"": LOOPBACK, "0.0.0.0": LOOPBACK, "::": "[::1]"}
        host = anywhere.get(self._address.host)
        return self._address.address if host is None else f"{host}:{self._address.port}"


def _environment(environ: dict[str, str], nats_url: str, bind: str) -> dict[str, str]:
    """What the processes get: ours, with the stack's own NATS."""
    connection = ("NATS_USER", "NATS_PASSWORD", "NATS_TOKEN", "NATS_CREDENTIALS_FILE", "NATS_TLS_")
    kept = {name: value for name, value in environ.items() if not name.startswith(connection)}
    kept.setdefault("WEB_CONCURRENCY", "2")
    kept.setdefault("LOG_FORMAT", "console")
    kept.update(NATS_URL=nats_url, GATEWAY_BIND=bind, PYTHONUNBUFFERED="1")
    return kept


def _in_words(status: int) -> str:
    return f"status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"
