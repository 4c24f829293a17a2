"""Wired: a gateway as a worker has it, in this process, with its spans kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Flask
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from werkzeug.test import TestResponse

from bridge import Bridge
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.intake import ResultIntake
from gateway.settings import Settings
from gateway.telemetry.metrics.labels import SubjectLabel
from gateway.telemetry.observer import NatsTelemetry
from gateway.telemetry.tracing.tracer import Tracing
from tests.support.waiting import GENEROUS_SECONDS, wait_until

CALLER = {"X-Tenant-ID": "acme", "X-Role": "admin"}
"""What an authenticating proxy sets; Flask's test client comes from 127.0.0.1."""


@dataclass(frozen=True)
class Wired:
    """An app and what is behind it."""

    app: Flask
    bridge: Bridge
    tracing: Tracing
    exporter: InMemorySpanExporter

    def post(self, path: str, body: object, **headers: str) -> TestResponse:
        """A JSON body of a caller with credentials."""
        return self.app.test_client().post(path, json=body, headers={**CALLER, **headers})

    def get(self, path: str, **headers: str) -> TestResponse:
        """Without credentials, unless ``headers`` bring some."""
        return self.app.test_client().get(path, headers=headers)

    def spans(self) -> list[ReadableSpan]:
        """What was finished since the last call."""
        assert self.tracing.provider is not None
        self.tracing.provider.force_flush()
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found

    def until_ready(self) -> None:
        """Wait until ``/readyz`` says so."""
        wait_until(
            lambda: self.get("/readyz").status_code == 200,
            GENEROUS_SECONDS,
            lambda: f"not ready: {self.get('/readyz').get_data(as_text=True)}",
        )


@contextmanager
def wired(
    nats_url: str, environ: Mapping[str, str] | None = None, *, start: bool = True
) -> Iterator[Wired]:
    """A gateway of its own, with ``environ`` added; ``start=False``: its bridge is not started."""
    settings = Settings.from_environ(
        {
            "AUTH_MODE": "headers",
            "TRUSTED_PROXIES": "127.0.0.1",
            "NATS_URL": nats_url,
            **(environ or {}),
        }
    )
    exporter = InMemorySpanExporter()
    tracing = Tracing(settings, exporter)
    bridge = Bridge(
        bridge_config(settings),
        observer=NatsTelemetry(tracing, SubjectLabel(())),
        services=(ResultIntake(settings),),
    )
    app = create_app(settings, bridge, tracing)
    if start:
        bridge.start()
    try:
        yield Wired(app, bridge, tracing, exporter)
    finally:
        bridge.close(5.0)
        tracing.shutdown(5.0)
