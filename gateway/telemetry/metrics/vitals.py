"""Vitals: what a worker tells about itself once a second, beside what its requests count.

On a thread of its own, so that it also tells of a loop that is stuck; started after the fork. What NATS said of
streams and consumers stays as it was while the connection is lost: ``beamline_gateway_bridge_connected_workers`` tells.
"""

from __future__ import annotations

import logging
import os
import platform
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

from bridge import Bridge, ConsumerLevel, Health, StreamLevel
from gateway.settings import Settings
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.zero_series import begin_at_zero

_log = logging.getLogger(__name__)
_SECONDS: Final = 1.0
_STATM: Final = Path("/proc/self/statm")


class Vitals:
    """One in each worker. ``draining`` is set when the worker is asked to stop."""

    def __init__(self, settings: Settings, bridge: Bridge, draining: threading.Event) -> None:
        self._settings = settings
        self._bridge = bridge
        self._draining = draining
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="vitals", daemon=True)
        self._reconnects = 0
        self._generation = 0
        self._streams: Mapping[str, StreamLevel] = {}
        self._consumers: Mapping[str, ConsumerLevel] = {}
        self._cpu_seconds = 0.0

    def start(self) -> None:
        """Tell what does not change, and go on telling the rest until `close`."""
        metrics.BUILD_INFO.labels(version("beamline-gateway"), platform.python_version()).set(1)
        metrics.WORKERS.set(1)
        metrics.CONFIGURED_WORKERS.set(self._settings.workers)
        metrics.WORKER_STARTS.inc()
        begin_at_zero(self._settings)
        self.tell()
        self._thread.start()

    def close(self) -> None:
        """Tell a last time: counters count to the end, and nobody is served any more."""
        self._over.set()
        self._thread.join(_SECONDS)
        self.tell()

    def tell(self) -> None:
        """Set all of it to what is now."""
        health = self._bridge.health()
        ready = health.ready and not self._draining.is_set()
        metrics.CONNECTED_WORKERS.set(health.connected)
        metrics.READY_WORKERS.set(ready)
        metrics.OPERATIONS.set(health.in_flight)
        self._tell_of_nats(health)
        self._tell_of_this_process()

    def _run(self) -> None:
        while not self._over.wait(_SECONDS):
            try:
                self.tell()
            except (
                Exception
            ):  # the next second may be better; without the thread nothing would be told any more
                _log.exception("vitals could not be told")

    def _tell_of_nats(self, health: Health) -> None:
        reconnects = max(0, health.connects - 1)
        metrics.NATS_RECONNECTS.inc(reconnects - self._reconnects)
        self._reconnects = reconnects
        generation = self._bridge.generation
        metrics.STORES_REPLACED.inc(generation - self._generation)
        self._generation = generation
        blocking = sum(finding.blocking for finding in health.findings)
        metrics.FINDINGS.labels("true").set(blocking)
        metrics.FINDINGS.labels("false").set(len(health.findings) - blocking)
        # Only what is news: of several workers' the value counts that was told last.
        if health.streams is not self._streams:
            self._streams = health.streams
            for name, stream in health.streams.items():
                metrics.STREAM_BYTES.labels(name).set(stream.size_bytes)
                metrics.STREAM_MESSAGES.labels(name).set(stream.messages)
                if stream.max_bytes is not None:
                    metrics.STREAM_MAX_BYTES.labels(name).set(stream.max_bytes)
        if health.consumers is not self._consumers:
            self._consumers = health.consumers
            for durable, consumer in health.consumers.items():
                metrics.CONSUMER_PENDING.labels(durable).set(consumer.pending)
                metrics.CONSUMER_UNACKNOWLEDGED.labels(durable).set(consumer.unacknowledged)
                metrics.CONSUMER_REDELIVERED.labels(durable).set(consumer.redelivered)

    def _tell_of_this_process(self) -> None:
        used = time.process_time()
        metrics.CPU_SECONDS.inc(used - self._cpu_seconds)
        self._cpu_seconds = used
        if _STATM.exists():  # Linux
            metrics.RESIDENT_BYTES.set(
                int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            )
