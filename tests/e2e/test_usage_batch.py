"""Batches of usage events: one outcome an event, by the same rules and under the same keys as single calls."""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import Any

import pytest

from tests.support.documents import USAGE, new_id, usage_body
from tests.support.http_client import Answer
from tests.support.idempotency_fleet import Counting, Fleet
from tests.support.idempotency_operations import METER, REPLAYED, USAGE_STREAM, Document
from tests.support.load import at_once
from tests.support.nats_session import StoredMessage
from tests.support.nats_tap import NatsTap
from tests.support.usage_batches import Expected, thousand
from tests.support.wire import USAGE_FIELDS, check_correlation, check_headers, expect_error

BATCH = f"{USAGE}/batch"
OUTCOMES = ("accepted", "duplicate", "conflict", "invalid", "unknown")


def send(fleet: Fleet, events: list[Any], *, instance: int = 0, tenant: str = "acme") -> Answer:
    return fleet.post(BATCH, {"events": events}, instance=instance, tenant=tenant)


def results(answer: Answer, count: int) -> list[Document]:
    """The outcomes of a batch of ``count`` events, after the checks that hold for every answer."""
    assert answer.status == 200, answer
    document = answer.json()
    assert set(document) == {"ok", "results", "summary", "context"}
    assert document["ok"] is True
    check_correlation(answer, document["context"])
    found: list[Document] = document["results"]
    assert len(found) == count
    assert document["summary"] == {
        name: sum(one["outcome"] == name for one in found) for name in OUTCOMES
    }
    for one in found:
        assert ("error" in one) == (one["outcome"] in ("conflict", "invalid", "unknown")), one
        assert ("seq" in one) == (one["outcome"] in ("accepted", "duplicate")), one
        assert ("duplicate_of" in one) == (one["outcome"] == "duplicate"), one
    return found


def outcomes(answer: Answer, count: int) -> list[str]:
    return [one["outcome"] for one in results(answer, count)]


def stored_since(fleet: Fleet, after: int, events: list[Document]) -> list[StoredMessage]:
    """The messages of these events behind a sequence, by their assignments."""
    ids = {event.get("assignment_id") for event in events}
    return [
        message
        for message in fleet.stored(USAGE_STREAM, after=after)
        if json.loads(message.payload).get("assignment_id") in ids
    ]


# -- the big one ---------------------------------------------------------------------------------------


def test_thousand_events_have_a_thousand_right_outcomes_and_880_are_emitted(fleet: Fleet) -> None:
    batch = thousand(seed=7)
    assert Counter(one.outcome for one in batch) == {
        "accepted": 930, "duplicate": 50, "conflict": 10, "invalid": 10,
    }  # fmt: skip
    events = [one.event for one in batch]
    before = fleet.last_sequence(USAGE_STREAM)
    counting = Counting(fleet, "usage_id")
    began = time.monotonic()
    first = results(send(fleet, events), 1000)
    took = time.monotonic() - began
    for expected, result in zip(batch, first, strict=True):
        check(expected, result)
        assert result.get("replayed", False) == expected.replayed, (expected, result)
    counting.expect(misses=930, hits=50)
    valid = [one.event for one in batch if one.outcome != "invalid"]
    messages = stored_since(fleet, before, valid)
    assert len(messages) == 880
    accepted = {one["usage_id"]: one["seq"] for one in first if one["outcome"] == "accepted"}
    assert {message.headers["usage_id"]: message.seq for message in messages} == accepted
    check_messages(
        messages,
        {one.event["usage_id"]: one.event for one in batch[::-1] if one.outcome == "accepted"},
    )
    assert took < 5, "the deadline of every request holds for it, too"

    # Sent again, to the other instance: the same outcomes, all of them replayed, and nothing new.
    before = fleet.last_sequence(USAGE_STREAM)
    again = results(send(fleet, events, instance=1), 1000)
    for expected, once, result in zip(batch, first, again, strict=True):
        check(expected, result)
        kept = expected.outcome in ("accepted", "duplicate")
        assert result.get("replayed", False) == kept, result
        assert result == (once | {"replayed": True} if kept else once)
    assert fleet.last_sequence(USAGE_STREAM) == before
    counting.expect(misses=930, hits=50 + 980)


def check(expected: Expected, result: Document) -> None:
    """The outcome is the right one, and is of this event."""
    assert result["outcome"] == expected.outcome, (expected, result)
    given = expected.event.get("usage_id") if isinstance(expected.event, dict) else None
    assert result["usage_id"] == given
    assert result.get("duplicate_of") == expected.duplicate_of, (expected, result)
    if expected.error is not None:
        assert result["error"]["code"] == expected.error
        assert result["error"]["message"]


def check_messages(messages: list[StoredMessage], events: dict[str, Document]) -> None:
    """Each message is what its event says, with exactly the contract's fields."""
    for message in messages:
        check_headers(message.headers, tenant="acme", jetstream=True)
        document = json.loads(message.payload)
        event = events[message.headers["usage_id"]]
        assert set(document) == USAGE_FIELDS - {"request_id"}
        assert document == {
            **{name: value for name, value in event.items() if name != "usage_id"},
            "trace_id": message.headers["trace_id"],
        }


def test_event_that_is_known_among_many_that_are_not_is_told_where_it_was(fleet: Fleet) -> None:
    events = [usage_body() for _ in range(100)]
    before = fleet.last_sequence(USAGE_STREAM)
    first = results(send(fleet, events), 100)
    more = [usage_body() for _ in range(99)]
    mixed = results(send(fleet, [*more[:50], events[7], *more[50:]], instance=1), 100)
    assert mixed.pop(50) == first[7] | {"replayed": True}
    assert {(one["outcome"], one.get("replayed")) for one in mixed} == {("accepted", None)}
    again = results(send(fleet, [*events, *more]), 199)
    assert again == [one | {"replayed": True} for one in (*first, *mixed)]
    assert len(stored_since(fleet, before, [*events, *more])) == 199


# -- one set of rules ----------------------------------------------------------------------------------


def test_single_calls_and_batches_are_one(fleet: Fleet) -> None:
    singly, batched, renamed, changed = (usage_body() for _ in range(4))
    before = fleet.last_sequence(USAGE_STREAM)
    first = fleet.post(USAGE, singly)
    assert first.status == 202
    fleet.post(USAGE, renamed)
    fleet.post(USAGE, changed)
    events = [
        singly,
        batched,
        {**renamed, "usage_id": new_id("us")},
        {**changed, "cost": 1},
    ]
    found = results(send(fleet, events, instance=1), 4)
    assert [one["outcome"] for one in found] == ["accepted", "accepted", "duplicate", "conflict"]
    assert (found[0].get("replayed"), found[0]["seq"]) == (True, first.json()["seq"])
    assert "replayed" not in found[1]
    assert found[2]["duplicate_of"] == renamed["usage_id"]
    # And the other way round: what came in a batch is replayed to a single call.
    for instance in range(2):
        again = fleet.post(USAGE, batched, instance=instance)
        assert (again.status, again.header(REPLAYED)) == (202, "true"), again
        assert again.json()["seq"] == found[1]["seq"]
    assert len(stored_since(fleet, before, [singly, batched, renamed, changed])) == 4


def test_first_of_a_batch_is_the_first_in_the_order_given(fleet: Fleet) -> None:
    """Chains of equal ids and equal pairs come out as if the events came singly, one after the other."""
    pair_a, pair_b = new_id("as"), new_id("as")
    one = usage_body(assignment_id=pair_a, cost=1)
    events = [
        one,
        usage_body(
            assignment_id=pair_b, usage_id=one["usage_id"]
        ),  # other content, so pair_b stays free
        usage_body(assignment_id=pair_b, cost=2),
        usage_body(assignment_id=pair_a),
        usage_body(assignment_id=pair_b),
        one,
    ]
    for round in range(2):
        found = results(send(fleet, events, instance=round), len(events))
        assert [result["outcome"] for result in found] == [
            "accepted", "conflict", "accepted", "duplicate", "duplicate", "accepted",
        ]  # fmt: skip
        assert found[3]["duplicate_of"] == one["usage_id"]
        assert found[4]["duplicate_of"] == events[2]["usage_id"]
        assert found[5]["replayed"] is True


def test_hundreds_of_reports_of_one_assignment_make_one_event(fleet: Fleet) -> None:
    """The worst case for keeping their order: each waits for the one before it."""
    assignment_id = new_id("as")
    events = [usage_body(assignment_id=assignment_id) for _ in range(300)]
    before = fleet.last_sequence(USAGE_STREAM)
    found = results(send(fleet, events), len(events))
    assert [one["outcome"] for one in found] == ["accepted"] + ["duplicate"] * 299
    assert {one["duplicate_of"] for one in found[1:]} == {events[0]["usage_id"]}
    assert len(stored_since(fleet, before, events)) == 1


def test_same_batch_on_both_instances_at_one_instant_emits_each_event_once(fleet: Fleet) -> None:
    events = [usage_body() for _ in range(100)]
    before = fleet.last_sequence(USAGE_STREAM)
    answers = at_once(range(4), lambda n: send(fleet, events, instance=n % 2))
    found = [results(answer, 100) for answer in answers]
    assert {one["outcome"] for batch in found for one in batch} == {"accepted"}
    for same in zip(*found, strict=True):
        assert len({one["seq"] for one in same}) == 1
        assert sum("replayed" not in one for one in same) == 1
    assert len(stored_since(fleet, before, events)) == 100


def test_batch_of_another_tenant_is_its_own(fleet: Fleet) -> None:
    event = usage_body()
    assert outcomes(send(fleet, [event]), 1) == ["accepted"]
    theirs = {**event, "tenant_id": "umbrella"}
    [result] = results(send(fleet, [theirs], tenant="umbrella"), 1)
    assert (result["outcome"], "replayed" in result) == ("accepted", False)
    # Somebody else's tenant in one event is that event's mistake.
    mixed = results(send(fleet, [theirs, usage_body()]), 2)
    assert [one["outcome"] for one in mixed] == ["invalid", "accepted"]
    assert mixed[0]["error"]["code"] == "denied"


def test_event_of_a_batch_keeps_its_own_trace(fleet: Fleet) -> None:
    traces = ["a" * 31 + str(n) for n in range(2)]
    events = [*(usage_body(trace_id=trace.upper()) for trace in traces), usage_body()]
    before = fleet.last_sequence(USAGE_STREAM)
    answer = send(fleet, events)
    assert outcomes(answer, 3) == ["accepted"] * 3
    found = {
        message.headers["usage_id"]: message for message in stored_since(fleet, before, events)
    }
    expected = [*traces, answer.json()["context"]["trace_id"]]
    for event, trace in zip(events, expected, strict=True):
        message = found[event["usage_id"]]
        assert message.headers["trace_id"] == json.loads(message.payload)["trace_id"] == trace


# -- limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document",
    [
        {"events": []},
        {"events": [{}] * 1001},
        {"events": {}},
        {"events": None},
        {},
        {"events": [usage_body()], "more": 1},
        [usage_body()],
    ],
    ids=["none", "1001", "object", "null", "absent", "unknown field", "bare list"],
)
def test_what_is_no_batch_is_refused_as_a_whole(fleet: Fleet, document: object) -> None:
    with NatsTap(fleet.nats.url) as tap:
        expect_error(fleet.post(BATCH, document), 400, "invalid_request")
        tap.settle()
        assert not tap.messages()


def test_batch_over_the_body_limit_is_too_large(fleet: Fleet) -> None:
    event = usage_body(event_type="x" * 128)
    events = [{**event, "misspelt": "x" * 1100}] * 1000
    expect_error(send(fleet, events), 413, "payload_too_large")


def test_batch_of_which_nothing_is_valid_is_answered_and_nothing_is_sent(fleet: Fleet) -> None:
    deep: Any = "usage"
    for _ in range(300):
        deep = [deep]
    events: list[Any] = [
        None,
        1,
        "x",
        [],
        {},
        {**usage_body(), "usage_id": deep},
        {"usage_id": {"a": 1}},
    ]
    with NatsTap(fleet.nats.url) as tap:
        found = results(send(fleet, events), len(events))
        tap.settle()
        assert not tap.messages()
    assert {one["outcome"] for one in found} == {"invalid"}


def test_state_of_an_event_of_a_batch_is_told_like_any_other(fleet: Fleet) -> None:
    event = usage_body()
    results(send(fleet, [event]), 1)
    state = fleet.get(METER.operation_path(event["usage_id"]), instance=1)
    assert (state.status, state.json()["state"]) == (200, "claimed")
