"""What most tests of the gateway start from: settings, the context of a request, an app without NATS."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from bridge import Bridge
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.context import RequestContext
from gateway.identity import Principal
from gateway.settings import Settings

TENANT = "acme"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = {"X-Tenant-ID": TENANT, "X-Role": "admin"}
"""The identity headers that an authenticating proxy sets; Flask's test client comes from 127.0.0.1."""
STRANGER = {"REMOTE_ADDR": "203.0.113.9"}
"""Who asks without a proxy."""

DECIDE = "/api/v1/routes/decide"
ASSIGNMENTS = "/api/v1/assignments"
ACKS = "/api/v1/acks"
USAGE = "/api/v1/usage"
DECIDE_BODY: dict[str, Any] = {"task": {"type": "chat", "payload": {"text": "hello there"}}}
ACK_BODY: dict[str, Any] = {"ack_id": "k-1", "assignment_id": "a-1", "status": "accepted"}


def settings(**environ: str) -> Settings:
    """Settings of an environment with an authenticating proxy on this machine, and ``environ``."""
    return Settings.from_environ(
        {"AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1", **environ}
    )


def app_without_nats(**environ: str) -> Flask:
    """The whole app over a bridge that is not started: what passes the door and the schema is answered 503."""
    made = settings(**environ)
    return create_app(made, Bridge(bridge_config(made)))


def context(**more: Any) -> RequestContext:
    """The context of an authenticated request of tenant ``acme``."""
    values: dict[str, Any] = {
        "request_id": "request-1",
        "trace_id": TRACE,
        "cp_phase": "cp2",
        "timeout_seconds": 5.0,
        "deadline": time.monotonic() + 5.0,
        "principal": Principal(tenant_id=TENANT, roles=("admin",), method="headers"),
    }
    return RequestContext(**{**values, **more})


def post(
    gateway: Flask,
    path: str = DECIDE,
    body: object = DECIDE_BODY,
    headers: Mapping[str, str] = CALLER,
) -> TestResponse:
    """A JSON body as a client posts it."""
    return gateway.test_client().post(path, json=body, headers=dict(headers))


def post_bytes(
    gateway: Flask, data: bytes, content_type: str | None = "application/json"
) -> TestResponse:
    """Bytes that call themselves JSON, or whatever ``content_type`` says."""
    headers = dict(CALLER) if content_type is None else {**CALLER, "Content-Type": content_type}
    return gateway.test_client().post(DECIDE, data=data, headers=headers)


def expect(answer: TestResponse, status: int, code: str) -> dict[str, Any]:
    """The answer is this error in the contract's one body, which is returned."""
    assert answer.is_json, answer.data
    body: dict[str, Any] = answer.get_json()
    assert (answer.status_code, body["error"]["code"]) == (status, code), body
    assert set(body) == {"ok", "error", "context"} and body["ok"] is False
    assert set(body["error"]) == {"code", "message", "intake_error_code", "details"}
    assert set(body["context"]) == {"request_id", "trace_id", "tenant_id"}
    assert answer.headers["X-Request-ID"] == body["context"]["request_id"]
    assert answer.headers["X-Trace-ID"] == body["context"]["trace_id"]
    return body
