"""A server that answers like a gateway, with one thing wrong: what a smoke check must find.

Right where its script does not say otherwise: probes, two tenants, usage events once each, decides of a session,
results, metrics in both formats, spans to a collector. Written from the contract; it knows nothing of the product.
"""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from tests.support.smoke_spans import ScriptedSpans

TENANTS: Final = {"key-of-one-tenant": "one", "key-of-another-tenant": "another"}
_USAGE: Final = "/api/v1/usage"
_DECIDE: Final = "/api/v1/routes/decide"
_ASSIGNMENTS: Final = "/api/v1/assignments"
_RESULTS: Final = "/api/v1/results/"
_SUBJECTS: Final = {
    _USAGE: "beamline.usage.v1.metered",
    _DECIDE: "beamline.router.v1.decide",
    _ASSIGNMENTS: "caf.exec.assign.v1",
}
_COUNTERS: Final = {
    "beamline_gateway_cp_requests_total": "cp_phase route method status",
    "beamline_gateway_nats_publishes_total": "subject outcome",
    "beamline_gateway_nats_requests_total": "subject outcome",
    "beamline_gateway_nats_consumption_total": "subject tenant result redelivered",
    "beamline_gateway_usage_emitted_total": "tenant source result",
    "beamline_gateway_rbac_decisions_total": "decision cache",
    "idempotency_hit_total": "tenant key_type",
    "idempotency_miss_total": "tenant key_type",
    "sticky_hits_total": "tenant subject",
    "sticky_miss_total": "tenant subject",
}
_HISTOGRAMS: Final = {
    "beamline_gateway_cp_latency_seconds": "cp_phase route method",
    "beamline_gateway_nats_consumption_latency_seconds": "subject tenant",
}


@dataclass
class Reply:
    """An answer before it is sent; a script may change it."""

    status: int
    document: Any
    headers: dict[str, str] = field(default_factory=dict)


def _as_it_is(reply: Reply, _tenant: str, _repeat: bool) -> Reply:
    return reply


def _same_text(text: str) -> str:
    return text


@dataclass(frozen=True)
class Script:
    """What is wrong. ``replies``: path → what becomes of a right reply, its tenant, whether it is a repeat."""

    replies: Mapping[str, Callable[[Reply, str, bool], Reply]] = field(default_factory=dict)
    exposition: Callable[[str], str] = _same_text
    openmetrics: Callable[[str], str] = _same_text
    metrics_status: int = 200
    metrics_type: str | None = None
    uncounted: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()


class ScriptedGateway:
    """Serves on a free port in threads of its own; a context manager. ``spans`` are sent as requests come."""

    def __init__(self, script: Script, spans: ScriptedSpans | None = None) -> None:
        self.script = script
        self.spans = spans
        self.events: dict[tuple[str, str], int] = {}
        self.sessions: set[str] = set()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.registry = CollectorRegistry()
        self.counters = {
            name: Counter(name, "As in the contract.", labels.split(), registry=self.registry)
            for name, labels in _COUNTERS.items()
        }
        self.histograms = {
            name: Histogram(name, "As in the contract.", labels.split(), registry=self.registry)
            for name, labels in _HISTOGRAMS.items()
        }
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.gateway = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, name: str, *labels: str) -> None:
        """Count once more, unless the script forgets it."""
        if name in self.script.uncounted:
            return
        if name in self.histograms:
            self.histograms[name].labels(*labels).observe(0.01)
        else:
            self.counters[name].labels(*labels).inc()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
    gateway: ScriptedGateway
    daemon_threads = True


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == "/metrics":
            self._metrics()
        elif path == "/livez":
            self._send(path, Reply(200, {"status": "ok"}))
        elif path == "/readyz":
            self._send(path, Reply(200, {"status": "ready", "missing": [], "findings": []}))
        elif path.startswith(_RESULTS):
            self._send(_RESULTS, Reply(200, {"ok": True, "result": {}}))
        else:
            self._send(path, Reply(404, _error("not_found", "")))

    def do_POST(self) -> None:
        gateway = self.server.gateway
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path
        key = self.headers.get("Authorization", "").removeprefix("Bearer ")
        tenant = TENANTS.get(key)
        if tenant is None:
            self._send(path, Reply(401, _error("unauthorized", "")))
            return
        gateway.count("beamline_gateway_rbac_decisions_total", "allow", "miss")
        if not body:
            self._send(path, Reply(400, _error("invalid_request", tenant)), tenant)
            return
        repeat, reply = {_USAGE: self._usage, _DECIDE: self._decide, _ASSIGNMENTS: self._assign}[
            path
        ](body, tenant)
        phase = self.headers.get("X-CP-Phase", "cp2")
        if gateway.spans is not None:
            gateway.spans.record(
                path,
                self.headers.get("traceparent", ""),
                tenant=tenant,
                cp_phase=phase,
                subject=_SUBJECTS[path],
            )
        gateway.count("beamline_gateway_cp_requests_total", phase, path, "POST", str(reply.status))
        gateway.count("beamline_gateway_cp_latency_seconds", phase, path, "POST")
        self._send(path, reply, tenant, repeat)

    def _usage(self, body: dict[str, Any], tenant: str) -> tuple[bool, Reply]:
        gateway = self.server.gateway
        key = (tenant, body["usage_id"])
        with gateway.lock:
            repeat = key in gateway.events
            seq = gateway.events.setdefault(key, len(gateway.events) + 1)
        if repeat:
            gateway.count("idempotency_hit_total", "other", "usage_id")
        else:
            gateway.count("idempotency_miss_total", "other", "usage_id")
            gateway.count("beamline_gateway_usage_emitted_total", "other", "http", "emitted")
            gateway.count("beamline_gateway_nats_publishes_total", _SUBJECTS[_USAGE], "ok")
        receipt = {
            "ok": True,
            "operation": "usage",
            "emitted": True,
            "stream": "BEAMLINE_USAGE",
            "seq": seq,
        }
        return repeat, Reply(202, receipt, {"Idempotency-Replayed": "true"} if repeat else {})

    def _decide(self, body: dict[str, Any], tenant: str) -> tuple[bool, Reply]:
        gateway = self.server.gateway
        session = body["context"]["session_id"]
        with gateway.lock:
            repeat = session in gateway.sessions
            gateway.sessions.add(session)
        sticky = "hits" if repeat else "miss"
        gateway.count(f"sticky_{sticky}_total", "other", _SUBJECTS[_DECIDE])
        gateway.count("beamline_gateway_nats_requests_total", _SUBJECTS[_DECIDE], "ok")
        decision = {"ok": True, "decision": {"provider_id": "a-provider"}}
        return repeat, Reply(200, decision, {"X-Sticky": "hit" if repeat else "miss"})

    def _assign(self, body: dict[str, Any], tenant: str) -> tuple[bool, Reply]:
        gateway = self.server.gateway
        result = "caf.exec.result.v1"
        gateway.count("beamline_gateway_nats_consumption_total", result, "other", "ok", "false")
        gateway.count("beamline_gateway_nats_consumption_latency_seconds", result, "other")
        return False, Reply(202, {"ok": True, "stream": "BEAMLINE_EXEC", "seq": 1})

    def _metrics(self) -> None:
        script = self.server.gateway.script
        if self._is_silent("/metrics"):
            return
        encoder, content_type = choose_encoder(self.headers.get("Accept", ""))
        change = script.openmetrics if "openmetrics" in content_type else script.exposition
        body = change(encoder(self.server.gateway.registry).decode()).encode()
        self.send_response(script.metrics_status)
        self.send_header("Content-Type", script.metrics_type or content_type)
        self.end_headers()
        self.wfile.write(body)

    def _send(self, path: str, reply: Reply, tenant: str = "", repeat: bool = False) -> None:
        if self._is_silent(path):
            return
        change = self.server.gateway.script.replies.get(path, _as_it_is)
        reply = change(reply, tenant, repeat)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        document = reply.document
        self.wfile.write(document if isinstance(document, bytes) else json.dumps(document).encode())

    def _is_silent(self, path: str) -> bool:
        """A silent one holds its client until the test ends."""
        silent = path in self.server.gateway.script.silent
        if silent:
            self.server.gateway.ended.wait()
        return silent

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def _error(code: str, tenant: str) -> dict[str, Any]:
    return {
        "ok": False,
        "error": {"code": code, "message": "as scripted", "intake_error_code": None, "details": {}},
        "context": {
            "request_id": "r",
            "trace_id": f"{time.time_ns():032x}",
            "tenant_id": tenant or None,
        },
    }
