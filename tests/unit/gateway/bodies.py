"""Hypothesis strategies of valid request bodies, written from the wire contract."""

from __future__ import annotations

import string
from typing import Any

import orjson
from hypothesis import strategies as st

PRINTABLE = "".join(chr(code) for code in range(0x21, 0x7F))
NAME = string.ascii_letters + string.digits + "_.:-"
ULID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

ids = st.text(PRINTABLE, min_size=1, max_size=128)
policy_ids = st.text(NAME, min_size=1, max_size=128)
any_text = st.text(max_size=30)
uuids = st.uuids(version=4).map(str)
ulids = st.tuples(st.sampled_from(ULID[:8]), st.text(ULID, min_size=25, max_size=25)).map("".join)
run_parts = uuids | ulids
trace_ids = (
    st.text("0123456789abcdefABCDEF", min_size=32, max_size=32).filter(
        lambda text: set(text) != {"0"}
    )
    | uuids
)
# Integers of 64 bits: what both ends read as integers.
numbers = st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(any_text, values, max_size=4)
phrases = st.text(min_size=1, max_size=40)


def _with(required: dict[str, Any], optional: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional=optional)


def _extended(known: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Payloads may hold more than the contract knows of them."""
    more = st.dictionaries(phrases.map("x-".__add__), values, max_size=2)
    return st.tuples(more, known).map(lambda pair: {**pair[0], **pair[1]})


_SHAPES = {
    "chat": _extended(_with({"text": any_text}, {"role": any_text, "metadata": objects})),
    "completion": _extended(
        _with(
            {"prompt": any_text},
            {
                "max_tokens": st.integers(1, 2**31),
                "temperature": st.floats(0, 2) | st.integers(0, 2),
            },
        )
    ),
    "embedding": _extended(
        _with(
            {"input": any_text | st.lists(any_text, max_size=3)},
            {"metadata": objects},
        )
    ),
}


def _large_enough(payload: dict[str, Any]) -> bool:
    return len(orjson.dumps(payload)) >= 10


@st.composite
def inputs(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A task type and a payload of its shape."""
    task_type = draw(
        st.sampled_from(list(_SHAPES))
        | st.text(min_size=1, max_size=128).filter(lambda text: text not in _SHAPES)
    )
    return task_type, draw(_SHAPES.get(task_type, objects).filter(_large_enough))


@st.composite
def _tasks(draw: st.DrawFn) -> dict[str, Any]:
    task_type, payload = draw(inputs())
    if draw(st.booleans()):
        return {"type": task_type, "payload": payload}
    return {"type": task_type, "payload_ref": draw(phrases)}


@st.composite
def decides(draw: st.DrawFn) -> dict[str, Any]:
    """DecideRequest; tenant and version may be left out, the gateway fills them in."""
    body: dict[str, Any] = draw(
        _with(
            {"task": _tasks()},
            {
                "version": st.just("1"),
                "tenant_id": st.just("acme"),
                "request_id": ids,
                "trace_id": trace_ids,
                "policy_id": policy_ids,
                "constraints": objects,
                "metadata": objects,
                "context": objects,
                "push_assignment": st.booleans(),
                "assignment_id": ids,
                "idempotency_key": st.text(min_size=1, max_size=64),
            },
        )
    )
    if draw(st.booleans()):
        body |= {name: draw(run_parts) for name in ("run_id", "flow_id", "step_id")}
    return body


@st.composite
def envelopes(draw: st.DrawFn) -> dict[str, Any]:
    """The older dialect of a decide."""
    task_type, payload = draw(inputs())
    message = draw(
        _with(
            {"message_id": ids, "message_type": st.just(task_type)},
            {"tenant_id": st.just("acme"), "trace_id": trace_ids, "metadata": objects},
        )
    )
    message["payload"] = orjson.dumps(payload).decode()
    return draw(_with({"message": st.just(message)}, {"policy_id": policy_ids, "context": objects}))


assignments = _with(
    {
        "assignment_id": ids,
        "executor": _with(
            {"provider_id": ids, "channel": st.sampled_from(["nats", "grpc"])},
            {"endpoint": phrases},
        ),
        "job": st.fixed_dictionaries({"type": phrases, "payload": objects})
        | st.fixed_dictionaries({"type": phrases, "payload_ref": phrases}),
    },
    {
        "version": st.just("1"),
        "tenant_id": st.just("acme"),
        "request_id": ids,
        "options": _with(
            {},
            {
                "priority": st.integers(0, 100),
                "deadline_ms": st.integers(0, 86_400_000),
                "retry": _with(
                    {},
                    {"max_attempts": st.integers(0, 100), "backoff_ms": st.integers(0, 60_000)},
                ),
            },
        ),
        "correlation": _with({}, {"trace_id": trace_ids}),
        "decision": objects,
        "metadata": objects,
    },
)
acks = _with(
    {
        "ack_id": ids,
        "assignment_id": ids,
        "status": st.sampled_from(["accepted", "rejected"]),
    },
    {
        "version": st.just("1"),
        "tenant_id": st.just("acme"),
        "reason": any_text,
        "correlation": _with({}, {"trace_id": trace_ids}),
        "metadata": objects,
    },
)
costs = st.integers(0, 10**6) | st.decimals(
    0, 10**6, places=9, allow_nan=False, allow_infinity=False
).map(float).filter(lambda cost: round(cost, 9) == cost)


@st.composite
def usage_events(draw: st.DrawFn) -> dict[str, Any]:
    """UsageEvent of any time; whether that is too late is not the schema's business."""
    event: dict[str, Any] = draw(
        _with(
            {
                "usage_id": ids,
                "provider_id": ids,
                "event_type": phrases,
                "latency_ms": st.integers(0, 10**9) | st.floats(0, 10**9),
                "cost": costs,
                "status": st.sampled_from(["success", "error", "timeout", "cancelled"]),
                "timestamp": st.integers(0, 2**53),
            },
            {"version": st.just("1"), "tenant_id": st.just("acme"), "trace_id": trace_ids},
        )
    )
    which = draw(
        st.sampled_from([("assignment_id",), ("request_id",), ("assignment_id", "request_id")])
    )
    return event | {name: draw(ids) for name in which}
