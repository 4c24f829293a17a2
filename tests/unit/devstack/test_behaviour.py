"""What a ``policy_id`` asks of the reference Router."""

from __future__ import annotations

import re

import orjson
import pytest

from gateway.devstack.behaviour import (
    BROKEN_REPLIES,
    UNKNOWN_CODE,
    Behaviour,
    BehaviourError,
    behaviour_of,
)
from gateway.devstack.contract import Intake
from gateway.devstack.contract.record import POLICY_ID


@pytest.mark.parametrize(
    "policy_id", [None, "default", "premium", "errors", "silence:1", "delayed", "x:y"]
)
def test_an_ordinary_policy_asks_for_nothing(policy_id: str | None) -> None:
    assert behaviour_of(policy_id) == Behaviour()


@pytest.mark.parametrize(
    ("policy_id", "behaviour"),
    [
        ("silence", Behaviour(silent=True)),
        ("delay:250", Behaviour(delay_ms=250)),
        ("delay:0", Behaviour()),
        ("late:1500", Behaviour(delay_ms=1500, late=True)),
        ("unknown-code", Behaviour(error_code=UNKNOWN_CODE)),
        ("error:denied", Behaviour(error_code="denied")),
        ("error:anything", Behaviour(error_code="anything")),
        (
            "error:unauthorized:TENANT_FORBIDDEN",
            Behaviour(error_code="unauthorized", intake="TENANT_FORBIDDEN"),
        ),
        ("without:openai:gpt-4o", Behaviour(without=frozenset({"openai:gpt-4o"}))),
    ],
)
def test_a_policy_of_ours_asks_for_what_it_says(policy_id: str, behaviour: Behaviour) -> None:
    assert behaviour_of(policy_id) == behaviour


@pytest.mark.parametrize("intake", Intake)
def test_every_intake_code_can_be_asked_for(intake: Intake) -> None:
    policy_id = f"error:{intake.error_code}:{intake}"
    assert POLICY_ID.fullmatch(policy_id)
    assert behaviour_of(policy_id) == Behaviour(error_code=intake.error_code, intake=intake)


@pytest.mark.parametrize(
    "policy_id",
    ["error:", "error::X", "error:denied:WHAT", "delay:", "delay:soon", "late:-1", "delay:1000000"],
)
def test_a_policy_that_only_begins_like_ours_is_a_mistake(policy_id: str) -> None:
    with pytest.raises(BehaviourError):
        behaviour_of(policy_id)


@pytest.mark.parametrize("name", BROKEN_REPLIES)
def test_a_broken_reply_is_neither_a_decision_nor_an_error(name: str) -> None:
    raw = behaviour_of(name).raw_reply
    assert raw is not None
    try:
        reply = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return
    assert not (isinstance(reply, dict) and _is_reply(reply))


def _is_reply(reply: dict[str, object]) -> bool:
    decision, error = reply.get("decision"), reply.get("error")
    if reply.get("ok") is True:
        return isinstance(decision, dict) and isinstance(decision.get("provider_id"), str)
    return reply.get("ok") is False and isinstance(error, dict) and "code" in error


def test_every_policy_that_the_router_documents_is_one_that_a_gateway_lets_through() -> None:
    from gateway.devstack import router

    assert router.__doc__ is not None
    documented = re.findall(r"``([a-z0-9:<>A-Z-]+)``", router.__doc__.split("=====")[1])
    assert not [name for name in documented if not POLICY_ID.fullmatch(re.sub("[<>]", "", name))]
    assert set(BROKEN_REPLIES) >= {"broken-json", "empty-reply", "not-utf8", "wrong-shape"}
