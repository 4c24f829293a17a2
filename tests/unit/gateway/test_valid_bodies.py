"""Everything that the contract calls valid loads unchanged, and the strict Router agrees."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import settings as hypothesis_settings

from gateway.context import normal_trace_id
from gateway.devstack.contract import read_decide_request
from gateway.devstack.contract.correlation import child_traceparent
from gateway.operations.decide import compose_request
from gateway.schemas import DecideRequest, ExecAssignment, ExecAssignmentAck, UsageEvent
from tests.unit.gateway import bodies
from tests.unit.gateway.given import TRACE, context


@hypothesis_settings(deadline=None)
@given(bodies.decides())
def test_a_valid_decide_loads_as_it_came(body: dict[str, Any]) -> None:
    assert DecideRequest().load(body) == body


@hypothesis_settings(deadline=None)
@given(bodies.assignments)
def test_a_valid_assignment_loads_as_it_came(body: dict[str, Any]) -> None:
    assert ExecAssignment().load(body) == body


@hypothesis_settings(deadline=None)
@given(bodies.acks)
def test_a_valid_ack_loads_as_it_came(body: dict[str, Any]) -> None:
    assert ExecAssignmentAck().load(body) == body


@hypothesis_settings(deadline=None)
@given(bodies.usage_events())
def test_a_valid_usage_event_loads_as_it_came(body: dict[str, Any]) -> None:
    loaded = UsageEvent().load(body)
    assert loaded == body
    # An integer that became a float would be another number on the wire.
    assert {name: type(value) for name, value in loaded.items()} == {
        name: type(value) for name, value in body.items()
    }


@hypothesis_settings(deadline=None)
@given(bodies.envelopes())
def test_an_older_envelope_loads_as_the_request_that_it_stands_for(body: dict[str, Any]) -> None:
    message = body["message"]
    loaded = DecideRequest().load(body)
    assert loaded["request_id"] == message["message_id"]
    assert loaded["task"] == {
        "type": message["message_type"],
        "payload": orjson.loads(message["payload"]),
    }
    for name in ("tenant_id", "trace_id", "metadata"):
        assert loaded.get(name) == message.get(name)
    for name in ("policy_id", "context"):
        assert loaded.get(name) == body.get(name)


@hypothesis_settings(deadline=None, max_examples=200)
@given(bodies.decides() | bodies.envelopes())
def test_the_strict_router_accepts_what_the_gateway_makes_of_a_valid_decide(
    body: dict[str, Any],
) -> None:
    request: dict[str, Any] = DecideRequest().load(body)
    request.pop("tenant_id", None)
    trace_id = normal_trace_id(request.pop("trace_id", TRACE)) or TRACE
    asker = context(request_id=request.pop("request_id", "request-1"), trace_id=trace_id)
    outgoing = compose_request(request, asker, subject="beamline.router.v1.decide")
    traced = {**outgoing.headers, "traceparent": child_traceparent(f"00-{trace_id}-{'1' * 16}-01")}
    read = read_decide_request(outgoing.payload, traced)
    assert read.envelope.tenant_id == "acme"
    assert read.request_id == asker.request_id
