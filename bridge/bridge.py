"""Bridge: the sync face of NATS. Start it, hand it operations from any thread, close it.

An operation is an async function over the `Bus`; it crosses to the loop once, with one deadline::

    bridge = Bridge(BridgeConfig(servers=("nats://127.0.0.1:4222",)))
    bridge.start()
    ack = bridge.run(lambda bus: bus.publish(subject, payload, headers=headers, deadline=deadline), deadline)
    bridge.close(timeout=5)

`start` never waits for NATS: a process boots without it, operations raise `NotSent` at once until it is
there, and go on when it comes back. Make a bridge after a fork, never before.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from bridge.bus import Bus
from bridge.config import BridgeConfig
from bridge.connection import Connection
from bridge.errors import BridgeError, Closed
from bridge.exchange import Exchange
from bridge.levels import ConsumerLevel, StreamLevel, keep_measuring
from bridge.loop import LoopThread
from bridge.observer import NoObserver, Observer
from bridge.permissions import covers, required_permissions
from bridge.resources import Audit, Finding, audit

T = TypeVar("T")
Service = Callable[[Bus], Awaitable[None]]
"""A long-running task over the bus: started at every connect, cancelled when the connection is lost."""

_log = logging.getLogger(__name__)
_SERVICE_RETRY_SECONDS = 0.5
_AUDIT_RETRY_SECONDS = 1.0
_DRAIN_SECONDS = 2.0
_REPLACED_SECONDS = 3600.0
"""How long a stream that is not the one from before is told of: nothing else shows what is gone."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a probe or an operator wants to know. ``ready``: connected, and nothing that is needed lacks.

    ``streams`` and ``consumers`` are by name, as of the last look, and empty while not connected.
    """

    loop_alive: bool
    connected: bool
    audited: bool
    findings: tuple[Finding, ...]
    connects: int
    last_error: str | None
    in_flight: int
    loop_lag_seconds: float
    streams: Mapping[str, StreamLevel] = field(default_factory=dict)
    consumers: Mapping[str, ConsumerLevel] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether operations can succeed now."""
        return (
            self.loop_alive
            and self.connected
            and self.audited
            and not any(finding.blocking for finding in self.findings)
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """Why it is not ready, a sentence each; empty when it is."""
        if not self.loop_alive:
            return ("the bridge's loop thread does not run",)
        if not self.connected:
            return (f"NATS: not connected ({self.last_error or 'connecting'})",)
        if not self.audited:
            return ("NATS: streams and buckets have not been checked yet",)
        return tuple(str(finding) for finding in self.findings if finding.blocking)


class Bridge:
    """See the module's docstring. All methods may be called from any thread but the loop's own."""

    def __init__(
        self,
        config: BridgeConfig,
        *,
        observer: Observer | None = None,
        services: Sequence[Service] = (),
        on_beat: Callable[[float], object] | None = None,
    ) -> None:
        """``on_beat`` is told on the loop, twice a second, how many seconds late the loop was."""
        self.config = config
        self._observer = observer or NoObserver()
        self._services = tuple(services)
        self._thread = LoopThread(
            name="bridge-loop", max_in_flight=config.max_in_flight, on_beat=on_beat
        )
        self._connection: Connection | None = None
        self._exchange: Exchange | None = None
        self._bus: Bus | None = None
        self._audit: Audit | None = None
        self._audit_now: asyncio.Event | None = None
        self._created: dict[str, str] = {}
        self._replaced: dict[str, float] = {}
        self._consumers: Mapping[str, ConsumerLevel] = {}
        self._generation = 0

    def start(self) -> None:
        """Start the loop thread and connect in the background. Raises ssl.SSLError or OSError for unusable
        certificates, before anything runs."""
        connection = Connection(
            self.config, on_connected=self._on_connected, on_disconnected=self._on_disconnected
        )
        self._connection = connection
        self._audit_now = asyncio.Event()
        self._exchange = Exchange(
            connection,
            on_trouble=self._audit_now.set,
            patient=self.config.replicas > 1,
        )
        self._bus = Bus(connection, self._exchange, self._observer, audited=lambda: self._audit)
        self._thread.start(connection.supervise)

    def run(self, operation: Callable[[Bus], Awaitable[T]], deadline: float) -> T:
        """Run one operation on the loop and wait for its outcome, until ``deadline`` (monotonic seconds).

        Raises what the operation raises, or NotSent, Unknown, Closed (`bridge.loop` has the contract).
        """
        bus = self._bus
        if bus is None:
            raise Closed("the bridge was not started")
        return self._thread.run(lambda: operation(bus), deadline)

    def close(self, timeout: float = 5.0) -> bool:
        """Stop within ``timeout`` seconds; True if everything in flight ended in order."""
        connection = self._connection
        if connection is None:
            return self._thread.close(timeout)
        drain_seconds = min(_DRAIN_SECONDS, timeout / 3)
        return self._thread.close(timeout, lambda: connection.close(drain_seconds))

    def health(self) -> Health:
        """A snapshot, without asking anybody."""
        connection, found = self._connection, self._audit
        return Health(
            loop_alive=self._thread.alive(),
            connected=connection is not None and connection.connected,
            audited=found is not None,
            findings=(found.findings if found else ()) + self._violations(),
            connects=connection.connects if connection else 0,
            last_error=connection.last_error if connection else None,
            in_flight=self._thread.in_flight,
            loop_lag_seconds=self._thread.lag_seconds,
            streams=found.levels if found else {},
            consumers=self._consumers,
        )

    @property
    def generation(self) -> int:
        """Counts up when a stream or bucket is found to be another one than before (deleted, wiped): what was
        remembered about its content is void."""
        return self._generation

    def server_now(self) -> float | None:
        """The server's clock in seconds since 1970, as of the last audit; None before the first."""
        found = self._audit
        return found.server_now() if found else None

    def wait_ready(self, timeout: float) -> bool:
        """Wait until `Health.ready`; False if it is not within ``timeout`` seconds."""
        end = time.monotonic() + timeout
        while not self.health().ready:
            if time.monotonic() >= end:
                return False
            time.sleep(0.01)
        return True

    # -- on the loop --------------------------------------------------------------------------------

    async def _on_connected(self) -> None:
        """Lives as long as the connection: audits, runs the services, audits again now and then."""
        assert self._bus is not None and self._connection is not None
        audited = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_auditing(audited))
            await audited.wait()  # the streams that services use exist, or nothing can make them
            for service in self._services:
                group.create_task(self._keep_serving(service, self._bus))
            group.create_task(keep_measuring(self._connection, self.config, self._measured))

    def _on_disconnected(self) -> None:
        assert self._exchange is not None
        self._exchange.connection_lost()
        self._audit = None  # the next server may be another one, or an empty one
        self._consumers = {}

    async def _keep_auditing(self, audited: asyncio.Event) -> None:
        assert self._connection is not None and self._audit_now is not None
        while True:
            self._audit_now.clear()
            await self._forget_refusals(self._connection)
            try:
                self._report(await audit(self._connection.client, self.config))
            except BridgeError:
                pass  # the connection is lost, and this task about to end with it
            except Exception:
                _log.exception("the audit failed")
            audited.set()
            # At most one a second, however many operations find no stream or a full one and ask for it.
            await asyncio.sleep(_AUDIT_RETRY_SECONDS)
            if self._audit is not None and self._audit.passed and not self._audit.widened:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.config.audit_interval_seconds):
                        await self._audit_now.wait()

    async def _forget_refusals(self, connection: Connection) -> None:
        connection.forget_refused_publishes()
        # What is left are subscriptions; a new connection makes them again, with what the account may do by then.
        if connection.violations and connection.age_seconds > self.config.audit_interval_seconds:
            await connection.renew()

    def _measured(self, consumers: Mapping[str, ConsumerLevel]) -> None:
        self._consumers = consumers

    def _report(self, found: Audit) -> None:
        others = [n for n, birth in found.created.items() if self._created.get(n, birth) != birth]
        self._generation += bool(others)
        self._created = {**self._created, **found.created}
        now = time.monotonic()
        self._replaced |= dict.fromkeys(others, now)
        told = [n for n, since in self._replaced.items() if now < since + _REPLACED_SECONDS]
        findings = (*found.findings, *(_replaced(name, self._created[name]) for name in told))
        found = replace(found, findings=findings)
        before = self._audit.findings if self._audit else ()
        for finding in found.findings:
            if finding not in before:
                _log.log(logging.ERROR if finding.blocking else logging.WARNING, "%s", finding)
        self._audit = found

    async def _keep_serving(self, service: Service, bus: Bus) -> None:
        while True:
            try:
                await service(bus)
                _log.error("service %r ended; starting it again", service)
            except Exception:
                _log.exception("service %r failed; starting it again", service)
            await asyncio.sleep(_SERVICE_RETRY_SECONDS)

    def _violations(self) -> tuple[Finding, ...]:
        """What the server refused, in the words of the audit, which may have found it too."""
        violations = dict(self._connection.violations) if self._connection else {}
        if not violations:
            return ()
        required = required_permissions(self.config)
        known = self._audit.findings if self._audit else ()
        refused: dict[Finding, None] = {}
        for subject, verb in violations.items():
            patterns = (p for p in required[verb] if covers(p.lower(), subject))
            sentence = f"may not {verb} to {next(patterns, subject)}"
            if not any(f"{finding.message} ".startswith(f"{sentence} ") for finding in known):
                refused[Finding("account", sentence, blocking=True)] = None
        return tuple(refused)


def _replaced(name: str, birth: str) -> Finding:
    return Finding(name, f"is not the one from before, but made at {birth}; what that held is gone")
