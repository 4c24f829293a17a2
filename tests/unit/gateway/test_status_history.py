"""History: what workers noted, step by step, added up over all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from gateway.context import RequestContext
from gateway.status import history
from gateway.status.history import STEP_SECONDS, STEPS, History, Past
from tests.unit.gateway.given import TENANT, context

Notes = list[tuple[int, Mapping[str, float]]]


def steps_of(*workers: Notes) -> list[tuple[int, Mapping[str, float]]]:
    """The steps in which something was counted, and how many steps ago each was."""
    found = history.steps_of(workers)
    assert len(found) == STEPS
    return [
        (STEPS - 1 - index, dict(step)) for index, step in enumerate(found) if any(step.values())
    ]


def ago(steps: int) -> int:
    return history.step_now() - steps


def test_a_step_holds_what_was_counted_between_two_notes() -> None:
    notes: Notes = [(ago(3), {}), (ago(2), {"2xx": 5.0}), (ago(1), {"2xx": 5.0, "4xx": 1.0})]
    assert steps_of(notes) == [(2, {"2xx": 5.0}), (1, {"2xx": 0.0, "4xx": 1.0})]


def test_the_workers_are_added_up_step_by_step() -> None:
    one: Notes = [(ago(2), {}), (ago(1), {"2xx": 5.0})]
    other: Notes = [(ago(2), {"2xx": 100.0}), (ago(1), {"2xx": 107.0})]
    assert steps_of(one, other) == [(1, {"2xx": 12.0})]


def test_what_is_older_than_the_page_goes_back_is_left_out() -> None:
    notes: Notes = [(ago(STEPS + 5), {}), (ago(STEPS), {"2xx": 3.0}), (ago(0), {"2xx": 4.0})]
    assert steps_of(notes) == [(0, {"2xx": 1.0})]


def test_the_first_note_is_only_compared_with() -> None:
    """A worker whose oldest notes were dropped has counted before them."""
    assert steps_of([(ago(1), {"2xx": 1_000.0})]) == []


def test_the_last_seconds_are_the_last_steps() -> None:
    past = Past(tuple({"2xx": float(n)} for n in range(STEPS)), ())
    assert past.last(STEP_SECONDS)["2xx"] == STEPS - 1
    assert past.last(2 * STEP_SECONDS)["2xx"] == STEPS - 1 + STEPS - 2
    assert past.last(STEPS * STEP_SECONDS)["2xx"] == sum(range(STEPS))


def test_unknown_outcomes_are_told_newest_first() -> None:
    kept = History()
    for number in range(3):
        kept.unknown(context(request_id=f"r-{number}"), "usage", times=number + 1)
    told = kept.past().unknown
    assert [(one.request_id, one.times) for one in told] == [("r-2", 3), ("r-1", 2), ("r-0", 1)]
    assert {(one.tenant, one.operation) for one in told} == {(TENANT, "usage")}


def of_tenant(tenant: str, request_id: str = "r-1") -> RequestContext:
    some = context(request_id=request_id)
    return some._replace(principal=replace(some.caller, tenant_id=tenant))


def test_one_tenant_does_not_push_anothers_unknown_outcomes_out() -> None:
    kept = History()
    kept.unknown(of_tenant("quiet"), "acks")
    for number in range(1_000):
        kept.unknown(of_tenant("loud", f"r-{number}"), "acks")
    assert Counter(one.tenant for one in kept.past().unknown) == {"quiet": 1, "loud": 10}


def test_unknown_outcomes_of_many_tenants_are_bounded() -> None:
    kept = History()
    for number in range(500):
        kept.unknown(of_tenant(f"t-{number}"), "acks")
    told = kept.past().unknown
    assert len(told) == 50 and told[0].tenant == "t-499"
