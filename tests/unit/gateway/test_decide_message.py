"""A decide on the wire and back: what the Router is sent, and what its reply becomes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway import json
from gateway.devstack.behaviour import BROKEN_REPLIES
from gateway.errors import GatewayError
from gateway.operations.decide import compose_request, read_reply
from tests.unit.gateway.given import TRACE, context

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
near_replies = st.fixed_dictionaries(
    {},
    optional={
        "ok": st.sampled_from([True, False, 1, 0, "true", None]),
        "decision": json_values
        | st.fixed_dictionaries(
            {}, optional={"provider_id": json_values | st.just("p"), "metadata": json_values}
        ),
        "error": json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "code": json_values | st.sampled_from(["denied", "internal", "of_tomorrow"]),
                "message": json_values,
                "intake_error_code": json_values,
                "details": json_values,
            },
        ),
        "context": json_values,
        "intake_error_code": json_values,
    },
)


def outcome(payload: bytes) -> dict[str, Any] | GatewayError:
    """The answer or the error; anything else that is raised fails the test."""
    try:
        return read_reply(payload, context())
    except GatewayError as error:
        return error


def assert_decision_or_error(payload: bytes) -> None:
    answer = outcome(payload)
    if isinstance(answer, GatewayError):
        assert answer.status >= 400
        json.dumps([answer.body({})])
    else:
        assert answer["ok"] is True
        assert isinstance(answer["decision"]["provider_id"], str)
        assert answer["decision"]["provider_id"]
        assert answer["context"]["request_id"] == "request-1"
        assert answer["context"]["trace_id"] == TRACE
        json.dumps([answer])


@hypothesis_settings(deadline=None)
@given(st.binary())
def test_whatever_bytes_come_they_are_a_decision_or_an_error(payload: bytes) -> None:
    assert_decision_or_error(payload)


@hypothesis_settings(deadline=None, max_examples=300)
@given(json_values | near_replies)
def test_whatever_json_comes_it_is_a_decision_or_an_error(reply: object) -> None:
    try:
        payload = orjson.dumps(reply)
    except TypeError:  # integers that JSON libraries do not write
        return
    assert_decision_or_error(payload)


@pytest.mark.parametrize("reply", BROKEN_REPLIES.values(), ids=list(BROKEN_REPLIES))
def test_an_unreadable_reply_is_502_and_never_200(reply: bytes) -> None:
    error = outcome(reply)
    assert isinstance(error, GatewayError)
    assert (error.status, error.code) == (502, "bad_reply")


@pytest.mark.parametrize("levels", [10, 200, 240, 254, 255, 1000, 2000])
@pytest.mark.parametrize("where", ["metadata", "details"])
def test_a_reply_that_is_nested_too_deeply_to_be_passed_on_is_a_bad_one(
    levels: int, where: str
) -> None:
    deep = "[" * levels + "]" * levels
    reply = {
        "metadata": '{"ok":true,"decision":{"provider_id":"p","metadata":{"deep":%s}}}',
        "details": '{"ok":false,"error":{"code":"denied","details":{"deep":%s}}}',
    }[where]
    payload = (reply % deep).encode()
    assert_decision_or_error(payload)
    answer = outcome(payload)
    refused = isinstance(answer, GatewayError) and answer.status == 502
    assert refused == (levels > 230)


def test_a_decision_is_passed_on_as_it_came_with_the_requests_own_ids() -> None:
    decision = {
        "provider_id": "openai:gpt-4o",
        "priority": 50,
        "expected_cost": 0.012,
        "reason": "best_score",
        "metadata": {"free": [None, {}]},
        "of_tomorrow": 1,
    }
    lost = {"request_id": "of another", "trace_id": None, "more": "kept"}
    reply = orjson.dumps({"ok": True, "decision": decision, "context": lost})
    assert outcome(reply) == {
        "ok": True,
        "decision": decision,
        "context": {"request_id": "request-1", "trace_id": TRACE, "more": "kept"},
    }


@pytest.mark.parametrize("place", ["error", "reply"])
def test_an_intake_error_is_kept_wherever_the_router_puts_it(place: str) -> None:
    error: dict[str, Any] = {"code": "invalid_request", "message": "no version"}
    reply: dict[str, Any] = {"ok": False, "error": error}
    (error if place == "error" else reply)["intake_error_code"] = "VERSION_UNSUPPORTED"
    answer = outcome(orjson.dumps(reply))
    assert isinstance(answer, GatewayError)
    assert (answer.status, answer.intake_error_code) == (400, "VERSION_UNSUPPORTED")
    assert answer.message == "no version"


# -- the request --------------------------------------------------------------------------------------


def composed(request: dict[str, Any], **more: Any) -> tuple[dict[str, Any], dict[str, str]]:
    outgoing = compose_request(request, context(**more), subject="beamline.router.v1.decide")
    return orjson.loads(outgoing.payload), dict(outgoing.headers)


TASK = {"type": "chat", "payload": {"text": "hello there"}}


def test_the_gateway_fills_in_version_tenant_and_ids_and_nothing_else() -> None:
    body, headers = composed({"task": TASK})
    assert body == {
        "version": "1",
        "tenant_id": "acme",
        "request_id": "request-1",
        "trace_id": TRACE,
        "task": TASK,
    }
    assert headers == {"version": "1", "tenant_id": "acme", "trace_id": TRACE, "cp_phase": "cp2"}


def test_an_unknown_phase_is_not_passed_on() -> None:
    assert "cp_phase" not in composed({"task": TASK}, cp_phase="unknown")[1]


def test_what_cannot_be_written_is_the_clients_mistake() -> None:
    deep: Any = {}
    for _ in range(254):
        deep = {"deeper": deep}
    with pytest.raises(GatewayError) as caught:
        composed({"task": TASK, "context": deep})
    assert caught.value.status == 400
