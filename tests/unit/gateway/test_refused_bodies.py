"""Everything else is refused, and the field is named: in the dialect that the client spoke."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from marshmallow import Schema, ValidationError

from gateway.schemas import DecideRequest, ExecAssignment, ExecAssignmentAck, UsageEvent

DECIDE: dict[str, Any] = {"task": {"type": "chat", "payload": {"text": "hello there"}}}
ENVELOPE: dict[str, Any] = {
    "message": {
        "message_id": "m-1",
        "message_type": "chat",
        "payload": '{"text": "hello there"}',
    }
}
ASSIGNMENT: dict[str, Any] = {
    "assignment_id": "a-1",
    "executor": {"provider_id": "p", "channel": "nats"},
    "job": {"type": "chat", "payload": {}},
}
ACK: dict[str, Any] = {"ack_id": "k-1", "assignment_id": "a-1", "status": "accepted"}
USAGE: dict[str, Any] = {
    "usage_id": "u-1",
    "assignment_id": "a-1",
    "provider_id": "p",
    "event_type": "chat",
    "latency_ms": 850,
    "cost": 0.012,
    "status": "success",
    "timestamp": 1767225600000,
}


def refusal(schema: Schema, body: object) -> dict[str, Any]:
    """Marshmallow's messages about a body that must be refused."""
    with pytest.raises(ValidationError) as caught:
        schema.load(body)  # type: ignore[arg-type]
    return caught.value.messages_dict


def put(body: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with another value at a dotted path."""
    name, _, rest = path.partition(".")
    return {**body, name: put(body.get(name, {}), rest, value) if rest else value}


def said_of(messages: Any, path: str) -> Any:
    """What the messages say of the field at a dotted path."""
    for name in path.split("."):
        assert name in messages, f"{path} is not named in {messages}"
        messages = messages[name]
    return messages


@pytest.mark.parametrize(
    ("schema", "body", "place"),
    [
        (DecideRequest(), DECIDE, ""),
        (DecideRequest(), DECIDE, "task."),
        (DecideRequest(), ENVELOPE, ""),
        (DecideRequest(), ENVELOPE, "message."),
        (ExecAssignment(), ASSIGNMENT, ""),
        (ExecAssignment(), ASSIGNMENT, "executor."),
        (ExecAssignment(), ASSIGNMENT, "job."),
        (ExecAssignment(), ASSIGNMENT, "options."),
        (ExecAssignment(), ASSIGNMENT, "options.retry."),
        (ExecAssignment(), ASSIGNMENT, "correlation."),
        (ExecAssignmentAck(), ACK, ""),
        (UsageEvent(), USAGE, ""),
    ],
)
def test_an_unknown_field_is_refused_and_named(
    schema: Schema, body: dict[str, Any], place: str
) -> None:
    path = f"{place}asignment_id"
    assert said_of(refusal(schema, put(body, path, "a-1")), path) == [
        "is not a field of this request"
    ]


# -- wrong fields -------------------------------------------------------------------------------------

NO_WHOLE_NUMBERS = [True, False, "5", 5.0, 5.5, None, [], {}, 2.0**64]
NO_NUMBERS = [True, False, "5", None, [], {}]


@pytest.mark.parametrize("value", [*NO_WHOLE_NUMBERS, -1, 2**53 + 1], ids=repr)
def test_a_timestamp_is_a_whole_json_number_within_bounds(value: object) -> None:
    assert "timestamp" in refusal(UsageEvent(), {**USAGE, "timestamp": value})


@pytest.mark.parametrize("value", [*NO_WHOLE_NUMBERS, -1, 101], ids=repr)
def test_a_priority_is_a_whole_json_number_from_0_to_100(value: object) -> None:
    body = put(ASSIGNMENT, "options.priority", value)
    said_of(refusal(ExecAssignment(), body), "options.priority")


@pytest.mark.parametrize("value", [*NO_NUMBERS, -1, -0.001], ids=repr)
@pytest.mark.parametrize("name", ["latency_ms", "cost"])
def test_an_amount_is_a_json_number_that_is_not_negative(name: str, value: object) -> None:
    assert name in refusal(UsageEvent(), {**USAGE, name: value})


@pytest.mark.parametrize("name", ["latency_ms", "cost"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")], ids=repr)
def test_an_amount_is_finite_even_if_a_parser_lets_another_through(name: str, value: float) -> None:
    assert name in refusal(UsageEvent(), {**USAGE, name: value})


@pytest.mark.parametrize(
    ("cost", "fits"),
    [
        (0, True),
        (0.0, True),
        (1e-9, True),
        (0.123456789, True),
        (1e300, True),
        (1e-10, False),
        (0.1234567891, False),
        (0.1 + 0.2, False),
        (5e-324, False),
    ],
)
def test_a_cost_has_at_most_nine_places(cost: float, fits: bool) -> None:
    assert ("cost" not in UsageEvent().validate({**USAGE, "cost": cost})) == fits


@pytest.mark.parametrize("value", [0, 1, 1.0, "true", "false", None, [], {}], ids=repr)
def test_a_flag_is_true_or_false_and_no_number(value: object) -> None:
    assert "push_assignment" in refusal(DecideRequest(), {**DECIDE, "push_assignment": value})


BAD_IDS: list[object] = ["", "a b", "a\n", "\x7f", "é", "a" * 129, None, 5, True, [], {}]


@pytest.mark.parametrize("value", BAD_IDS, ids=repr)
@pytest.mark.parametrize(
    ("schema", "body", "path"),
    [
        (DecideRequest(), DECIDE, "request_id"),
        (DecideRequest(), DECIDE, "assignment_id"),
        (DecideRequest(), ENVELOPE, "message.message_id"),
        (ExecAssignment(), ASSIGNMENT, "assignment_id"),
        (ExecAssignment(), ASSIGNMENT, "request_id"),
        (ExecAssignment(), ASSIGNMENT, "executor.provider_id"),
        (ExecAssignmentAck(), ACK, "ack_id"),
        (ExecAssignmentAck(), ACK, "assignment_id"),
        (UsageEvent(), USAGE, "usage_id"),
        (UsageEvent(), USAGE, "assignment_id"),
        (UsageEvent(), USAGE, "request_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_id_is_printable_ascii_without_blanks(
    schema: Schema, body: dict[str, Any], path: str, value: object
) -> None:
    said_of(refusal(schema, put(body, path, value)), path)


@pytest.mark.parametrize(
    ("schema", "body", "path"),
    [
        (DecideRequest(), DECIDE, "task"),
        (DecideRequest(), DECIDE, "task.type"),
        (DecideRequest(), DECIDE, "task.payload"),
        (DecideRequest(), DECIDE, "context"),
        (DecideRequest(), DECIDE, "metadata"),
        (DecideRequest(), DECIDE, "constraints"),
        (DecideRequest(), DECIDE, "policy_id"),
        (DecideRequest(), DECIDE, "version"),
        (DecideRequest(), DECIDE, "tenant_id"),
        (DecideRequest(), DECIDE, "trace_id"),
        (DecideRequest(), DECIDE, "run_id"),
        (DecideRequest(), DECIDE, "idempotency_key"),
        (DecideRequest(), ENVELOPE, "message"),
        (DecideRequest(), ENVELOPE, "message.message_type"),
        (DecideRequest(), ENVELOPE, "message.payload"),
        (DecideRequest(), ENVELOPE, "message.metadata"),
        (DecideRequest(), ENVELOPE, "context"),
        (ExecAssignment(), ASSIGNMENT, "executor"),
        (ExecAssignment(), ASSIGNMENT, "executor.channel"),
        (ExecAssignment(), ASSIGNMENT, "job"),
        (ExecAssignment(), ASSIGNMENT, "options"),
        (ExecAssignment(), ASSIGNMENT, "correlation"),
        (ExecAssignment(), ASSIGNMENT, "decision"),
        (ExecAssignmentAck(), ACK, "status"),
        (ExecAssignmentAck(), ACK, "reason"),
        (UsageEvent(), USAGE, "status"),
        (UsageEvent(), USAGE, "event_type"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("value", [None, 7, True, [1]], ids=repr)
def test_a_field_of_another_type_is_refused_and_named(
    schema: Schema, body: dict[str, Any], path: str, value: object
) -> None:
    said_of(refusal(schema, put(body, path, value)), path)


@pytest.mark.parametrize(
    ("schema", "body", "path"),
    [
        (DecideRequest(), DECIDE, "task"),
        (DecideRequest(), DECIDE, "task.type"),
        (DecideRequest(), DECIDE, "task.payload"),
        (DecideRequest(), ENVELOPE, "message.message_id"),
        (DecideRequest(), ENVELOPE, "message.message_type"),
        (DecideRequest(), ENVELOPE, "message.payload"),
        (ExecAssignment(), ASSIGNMENT, "executor.provider_id"),
        (ExecAssignment(), ASSIGNMENT, "executor.channel"),
        (ExecAssignment(), ASSIGNMENT, "job.type"),
        (ExecAssignment(), ASSIGNMENT, "job.payload"),
        (ExecAssignmentAck(), ACK, "assignment_id"),
        (ExecAssignmentAck(), ACK, "status"),
        *((UsageEvent(), USAGE, name) for name in USAGE if name != "usage_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_field_is_named(schema: Schema, body: dict[str, Any], path: str) -> None:
    *outer, name = path.split(".")
    less = orjson.loads(orjson.dumps(body))
    place = less
    for step in outer:
        place = place[step]
    del place[name]
    said_of(refusal(schema, less), path)


@pytest.mark.parametrize("body", [None, [], [DECIDE], "x", 1, True], ids=repr)
@pytest.mark.parametrize(
    "schema", [DecideRequest(), ExecAssignment(), ExecAssignmentAck(), UsageEvent()]
)
def test_a_body_is_an_object(schema: Schema, body: object) -> None:
    assert refusal(schema, body) == {"_schema": ["must be a JSON object"]}


def test_one_input_is_given_in_place_or_by_reference() -> None:
    both = {"type": "chat", "payload": {"text": "hello there"}, "payload_ref": "s3://x"}
    assert "payload" in refusal(DecideRequest(), {"task": both})["task"]
    assert "payload" in refusal(ExecAssignment(), {**ASSIGNMENT, "job": both})["job"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"task": {"type": "other", "payload": {"a": "b"}}}, "task.payload"),
        (put(ENVELOPE, "message.payload", '{"text":   1}'), "message.payload"),
        (put(ENVELOPE, "message.payload", '{"text"'), "message.payload"),
        (put(ENVELOPE, "message.payload", '["hello there"]'), "message.payload"),
        (
            put(put(ENVELOPE, "message.message_type", "x"), "message.payload", "{       }"),
            "message.payload",
        ),
    ],
)
def test_an_input_that_the_router_would_refuse_is_refused_here_in_the_dialects_own_names(
    body: dict[str, Any], path: str
) -> None:
    said_of(refusal(DecideRequest(), body), path)


def test_run_flow_and_step_come_together() -> None:
    run = "6f1c2f0e-8f5e-4a62-9a4a-0d7c9d6d2f11"
    messages = refusal(DecideRequest(), {**DECIDE, "flow_id": run, "step_id": run})
    assert list(messages) == ["flow_id"]


def test_an_idempotency_key_is_counted_in_bytes() -> None:
    assert not DecideRequest().validate({**DECIDE, "idempotency_key": "é" * 128})
    assert "idempotency_key" in refusal(DecideRequest(), {**DECIDE, "idempotency_key": "é" * 129})
