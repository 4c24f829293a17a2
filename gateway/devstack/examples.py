"""What ``beamline-gateway dev`` prints when it is ready: requests to paste, and where things are."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gateway.devstack.demo_access import TENANT, DemoAccess


def welcome(
    *,
    base_url: str,
    nats_url: str,
    monitor_url: str,
    state: Path,
    access: DemoAccess,
    operators: Mapping[str, str],
    started_ms: int,
) -> str:
    """The text. ``base_url`` has no slash at its end; ``operators`` is the environment that operators' commands
    need; ``started_ms`` is in milliseconds since epoch.

    The ids are of this start, since the state of earlier ones is kept: the first time that a request is
    pasted it has its effect, and every further time the gateway recognises it.
    """
    run = f"{started_ms // 1000:x}"
    post = partial(_post, base_url, access.curl)
    requests = (
        ("A routing decision", post("/api/v1/routes/decide", _decide(run))),
        (
            "The same, in the older envelope",
            post("/api/v1/routes/decide", _older_decide(run)),
        ),
        (
            "An assignment (the worker takes it, acknowledges it and returns a result)",
            post("/api/v1/assignments", _assignment(run)),
        ),
        ("An acknowledgement", post("/api/v1/acks", _ack(run))),
        ("A usage event", post("/api/v1/usage", _usage(run, started_ms))),
        ("Ready? And its metrics", f"curl -sS {base_url}/readyz\ncurl -sS {base_url}/metrics"),
    )
    pasted = "\n\n".join(f"# {title}\n{command}" for title, command in requests)
    notes = "".join(f"{line}\n" for line in access.notes)
    environment = " ".join(f"{name}={shlex.quote(value)}" for name, value in operators.items())
    return f"""
──────────────────────────────────────────────────────────────────────────────
Beamline Gateway is ready at {base_url}   (Ctrl-C ends everything)

{pasted}

API page      {base_url}/docs        (its source: {base_url}/openapi.json)
{notes}Operators     export {environment}
              and then: beamline-gateway apikeys list, roles show, dlq list, audit …
NATS          {nats_url}        (monitoring: {monitor_url})
State         {state}        (kept; delete the folder to start empty)
──────────────────────────────────────────────────────────────────────────────"""


def _decide(run: str) -> dict[str, Any]:
    return {
        "version": "1",
        "request_id": f"request-{run}",
        "task": {"type": "chat", "payload": {"text": "hello there"}},
        "policy_id": "default",
        "context": {"session_id": "s-1", "user_id": "u-1"},
    }


def _older_decide(run: str) -> dict[str, Any]:
    return {
        "message": {
            "message_id": f"message-{run}",
            "tenant_id": TENANT,
            "message_type": "chat",
            "payload": json.dumps({"text": "hello there"}),
        },
        "policy_id": "default",
        "context": {"session_id": "s-1", "user_id": "u-1"},
    }


def _assignment(run: str) -> dict[str, Any]:
    return {
        "version": "1",
        "assignment_id": f"assignment-{run}",
        "request_id": f"request-{run}",
        "executor": {"provider_id": "openai:gpt-4o", "channel": "nats"},
        "job": {"type": "chat", "payload": {"text": "hello there"}},
    }


def _ack(run: str) -> dict[str, Any]:
    return {
        "version": "1",
        "ack_id": f"ack-{run}",
        "assignment_id": f"assignment-{run}",
        "status": "accepted",
    }


def _usage(run: str, now_ms: int) -> dict[str, Any]:
    return {
        "version": "1",
        "usage_id": f"usage-{run}",
        # Of a request: that of the assignment may be metered by its result, and then only once.
        "request_id": f"request-{run}",
        "provider_id": "openai:gpt-4o",
        "event_type": "chat",
        "latency_ms": 850,
        "cost": 0.012,
        "status": "success",
        "timestamp": now_ms,
    }


def _post(base_url: str, caller: str, path: str, body: dict[str, Any]) -> str:
    return (
        f"curl -sS {base_url}{path} \\\n"
        f"  {caller} -H 'Content-Type: application/json' \\\n"
        f"  -d '{json.dumps(body)}'"
    )
