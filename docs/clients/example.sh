#!/usr/bin/env bash
# A task, from asking who takes it to the bill. Prints every answer, one a line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
task=$(date +%s)-$$-$RANDOM # made once a task, and kept with it: this is what makes a repeat a repeat
now_ms=$(date +%s)000

# Who takes it? With an assignment_id the decision is kept: asked again, it is the same.
./beamline.sh POST /api/v1/routes/decide <<< '{"assignment_id": "a-'"$task"'", "policy_id": "default",
  "task": {"type": "chat", "payload": {"text": "hello there"}}, "context": {"session_id": "s-'"$task"'"}}'
echo

# Give it to a worker, and wait for what becomes of it.
./beamline.sh POST /api/v1/assignments <<< '{"assignment_id": "a-'"$task"'",
  "executor": {"provider_id": "openai:gpt-4o", "channel": "nats"},
  "job": {"type": "chat", "payload": {"text": "hello there"}}}'
echo
./beamline.sh GET "/api/v1/results/a-$task?wait_ms=20000"
echo

# Say that it was taken (workers on NATS do so themselves).
./beamline.sh POST /api/v1/acks <<< '{"ack_id": "k-'"$task"'", "assignment_id": "a-'"$task"'", "status": "accepted"}'
echo

# What it cost. The worker's result was metered already, so this one does not count again: "emitted" is false.
./beamline.sh POST /api/v1/usage <<< '{"usage_id": "u-'"$task"'", "assignment_id": "a-'"$task"'",
  "provider_id": "openai:gpt-4o", "event_type": "chat", "latency_ms": 850, "cost": 0.012, "status": "success",
  "timestamp": '"$now_ms"'}'
echo
