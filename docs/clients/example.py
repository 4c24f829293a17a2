"""A task, from asking who takes it to the bill. Prints every answer, one a line."""

import json
import os
import time
import uuid

from beamline import Beamline

gateway = Beamline(os.environ["BEAMLINE_URL"], os.environ["BEAMLINE_KEY"])
task = uuid.uuid4().hex  # made once a task, and kept with it: this is what makes a repeat a repeat


def send(method, path, document=None):
    body = None if document is None else json.dumps(document).encode()
    answer = gateway.send(method, path, body)
    answer.raise_for_status()
    print(answer.content.decode())


# Who takes it? With an assignment_id the decision is kept: asked again, it is the same.
send(
    "POST",
    "/api/v1/routes/decide",
    {
        "assignment_id": f"a-{task}",
        "policy_id": "default",
        "task": {"type": "chat", "payload": {"text": "hello there"}},
        "context": {"session_id": f"s-{task}"},
    },
)

# Give it to a worker, and wait for what becomes of it.
send(
    "POST",
    "/api/v1/assignments",
    {
        "assignment_id": f"a-{task}",
        "executor": {"provider_id": "openai:gpt-4o", "channel": "nats"},
        "job": {"type": "chat", "payload": {"text": "hello there"}},
    },
)
send("GET", f"/api/v1/results/a-{task}?wait_ms=20000")

# Say that it was taken (workers on NATS do so themselves).
send(
    "POST",
    "/api/v1/acks",
    {"ack_id": f"k-{task}", "assignment_id": f"a-{task}", "status": "accepted"},
)

# What it cost. The worker's result was metered already, so this one does not count again: "emitted" is false.
send(
    "POST",
    "/api/v1/usage",
    {
        "usage_id": f"u-{task}",
        "assignment_id": f"a-{task}",
        "provider_id": "openai:gpt-4o",
        "event_type": "chat",
        "latency_ms": 850,
        "cost": 0.012,
        "status": "success",
        "timestamp": int(time.time() * 1000),
    },
)
