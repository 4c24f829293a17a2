"""The verdict of the faults: what it must find, planted; a checker that finds nothing must be one that would."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from tests.faults.siege.clients import Late, Ledger
from tests.faults.siege.effects import (
    ASK,
    BATCH,
    METER,
    PLAIN,
    Attempt,
    Effect,
    Operation,
    batch_ids,
)
from tests.faults.siege.table import Table
from tests.faults.siege.verdict import Excuse, Observed, Verdict, judge
from tests.support.nats_session import StoredMessage

REPLAYED = b"\r\nIdempotency-Replayed: true"


def wanted(operation: Operation = METER, tenant: str = "acme", id: str = "one") -> Effect:
    return Effect(operation.name, tenant, id)


def answer(effect: Effect, seq: int = 7, *, of: str = "", replayed: bool = False) -> str:
    """Give an effect's next attempt a receipt; what was found crossed about it. ``of``: the request it belongs to."""
    _, request_id = effect.request()
    head = b"HTTP/1.1 202 Accepted\r\nX-Request-ID: " + request_id.encode()
    head += (REPLAYED if replayed else b"") + b"\r\n"
    body = {
        "ok": True,
        "usage_id": effect.id,
        "emitted": True,
        "seq": seq,
        "context": {"request_id": of or request_id},
    }
    return effect.note(request_id, 202, head, json.dumps(body).encode())


def decided(effect: Effect, by: str) -> str:
    """The same for a decide, decided for the request ``by``."""
    _, request_id = effect.request()
    head = f"HTTP/1.1 200 OK\r\nX-Request-ID: {request_id}\r\nIdempotency-Replayed: true\r\n"
    body = {
        "decision": {"provider_id": f"provider-of:{by}"},
        "context": {"request_id": request_id},
    }
    return effect.note(request_id, 200, head.encode(), json.dumps(body).encode())


def accepted(effect: Effect, *, first: int = 1, unknown: int = 0, replayed: bool = False) -> str:
    """The same for a batch, its events at places from ``first`` on; the last ``unknown`` of them are not settled."""
    _, request_id = effect.request()
    head = f"HTTP/1.1 200 OK\r\nX-Request-ID: {request_id}\r\n"
    results: list[dict[str, Any]] = [
        {"usage_id": name, "outcome": "accepted", "seq": seq}
        | ({"replayed": True} if replayed else {})
        for seq, name in enumerate(batch_ids(effect.id), first)
    ]
    for one in results[len(results) - unknown :]:
        one["outcome"] = "unknown"
    body = {"results": results, "context": {"request_id": request_id}}
    return effect.note(request_id, 200, head.encode(), json.dumps(body).encode())


def stored(effect: Effect, seq: int = 7, **more: str) -> StoredMessage:
    document = {
        "tenant_id": effect.tenant,
        "assignment_id": effect.id,
        "provider_id": effect.tenant,
    }
    headers = {"tenant_id": effect.tenant}
    return StoredMessage(seq, METER.subject, headers, json.dumps({**document, **more}).encode())


def verdict(
    *effects: Effect,
    messages: Sequence[StoredMessage] = (),
    late: Sequence[Late] = (),
    crossed: Sequence[str] = (),
    asked: Mapping[tuple[str, str], Sequence[tuple[str, float]]] | None = None,
    results: Mapping[tuple[str, str], bool] | None = None,
    **more: Any,
) -> Verdict:
    ledger = Ledger(effects=list(effects), late=list(late), crossed=[one for one in crossed if one])
    line = Verdict("a fault", times=1, wanted=1, return_limit_seconds=5.0)
    return judge(line, Observed(ledger, messages, asked or {}, results or {}, **more))


def test_an_effect_that_is_where_every_receipt_says_is_sound() -> None:
    effect = wanted()
    crossed = [answer(effect), answer(effect, of="acme.one.1", replayed=True)]
    line = verdict(effect, messages=[stored(effect)], crossed=crossed)
    assert line.sound, line
    assert line.effects == 1


def test_a_lost_effect_is_found() -> None:
    effect = wanted()
    answer(effect)
    line = verdict(effect)
    assert (line.lost, line.sound) == (1, False)


def test_a_receipt_of_another_place_is_a_loss() -> None:
    effect = wanted()
    answer(effect, 8)
    assert verdict(effect, messages=[stored(effect, 7)]).lost == 1


def test_an_effect_that_is_stored_twice_is_found_even_if_nobody_was_told() -> None:
    effect = wanted()
    answer(effect)
    line = verdict(effect, messages=[stored(effect, 7), stored(effect, 9)])
    assert (line.twice, line.lost, line.sound) == (1, 0, False)


def test_two_answers_that_claim_to_be_the_first_are_found() -> None:
    effect = wanted()
    answer(effect)
    answer(effect)
    assert verdict(effect, messages=[stored(effect)]).twice == 1


def test_the_same_id_of_two_tenants_is_two_effects() -> None:
    mine, theirs = wanted(tenant="acme"), wanted(tenant="globex")
    answer(mine, 7)
    answer(theirs, 8)
    assert verdict(mine, theirs, messages=[stored(mine, 7), stored(theirs, 8)]).sound


def test_an_answer_to_another_tenants_request_is_found() -> None:
    effect = wanted()
    line = verdict(effect, messages=[stored(effect)], crossed=[answer(effect, of="globex.one.1")])
    assert (line.crossed, line.sound) == (1, False)


def test_a_decision_of_another_request_is_found() -> None:
    assert decided(wanted(PLAIN), "acme.one.2")
    assert not decided(wanted(PLAIN), "acme.one.1")


def test_a_stored_effect_with_another_tenants_content_is_found() -> None:
    effect = wanted()
    answer(effect)
    line = verdict(effect, messages=[stored(effect, provider_id="globex")])
    assert (line.crossed, line.sound) == (1, False)


def test_a_late_answer_is_found_unless_it_was_at_the_frozen_process() -> None:
    late = Late("acme.one.1", port=4711, sent=10.0, seconds=1.6, status=202)
    assert verdict(late=[late]).late == 1
    excuse = Excuse(frozenset({4711}), since=9.0, until=12.0)
    line = verdict(late=[late], excuses=[excuse])
    assert (line.late, line.excused, line.sound) == (0, 1, True)
    for other in (Excuse(frozenset({4712}), 9.0, 12.0), Excuse(frozenset({4711}), 12.0, 13.0)):
        assert verdict(late=[late], excuses=[other]).late == 1


def of_batch(effect: Effect) -> list[StoredMessage]:
    return [
        stored(wanted(id=name), seq=seq) for seq, name in enumerate(batch_ids(effect.id), start=1)
    ]


def test_a_batch_whose_events_are_where_every_answer_says_is_sound() -> None:
    effect = wanted(BATCH)
    crossed = [accepted(effect, unknown=5), accepted(effect, replayed=True)]
    # Those that were unknown are new to the second answer only.
    effect.new.update(batch_ids(effect.id)[-5:])
    line = verdict(effect, messages=of_batch(effect), crossed=crossed)
    assert line.sound, line
    assert line.effects == 1


def test_an_event_of_a_batch_that_is_lost_is_found_even_if_the_others_are_unknown() -> None:
    effect = wanted(BATCH)
    accepted(effect, unknown=39)
    accepted(effect, replayed=True)
    assert verdict(effect, messages=of_batch(effect)[1:]).lost == 1
    assert verdict(effect, messages=of_batch(effect)[:-1]).lost == 1
    assert verdict(effect, messages=of_batch(effect)).lost == 0


def test_an_event_of_a_batch_that_is_told_to_be_elsewhere_or_new_twice_is_found() -> None:
    effect = wanted(BATCH)
    accepted(effect, first=2)
    assert verdict(effect, messages=of_batch(effect)).lost == 1
    effect = wanted(BATCH)
    accepted(effect)
    accepted(effect)
    line = verdict(effect, messages=of_batch(effect))
    assert (line.lost, line.twice) == (0, 1)


def test_a_batch_that_is_never_accepted_as_a_whole_is_not_settled() -> None:
    effect = wanted(BATCH)
    accepted(effect, unknown=1)
    assert verdict(effect, messages=of_batch(effect)).unsettled == 1


def test_an_answer_with_the_results_of_another_batch_is_found() -> None:
    effect, other = wanted(BATCH), wanted(BATCH, id="other")
    _, request_id = effect.request()
    results = [{"usage_id": name, "outcome": "accepted", "seq": 1} for name in batch_ids(other.id)]
    body = {"results": results, "context": {"request_id": request_id}}
    head = f"HTTP/1.1 200 OK\r\nX-Request-ID: {request_id}\r\n"
    crossed = effect.note(request_id, 200, head.encode(), json.dumps(body).encode())
    assert verdict(effect, crossed=[crossed]).crossed == 1


def test_an_effect_that_is_never_settled_is_found() -> None:
    effect = wanted()
    effect.request()
    line = verdict(effect)
    assert (line.unsettled, line.sound) == (1, False)


def test_a_decide_that_is_answered_differently_later_is_lost() -> None:
    effect = wanted(ASK)
    decided(effect, "acme.one.1")
    decided(effect, "acme.one.2")
    assert verdict(effect).lost == 1


@pytest.mark.parametrize(("status", "again"), [(200, 1), (0, 1), (504, 0)])
def test_a_router_that_is_asked_again_within_a_lease_is_found(status: int, again: int) -> None:
    effect = wanted(ASK)
    decided(effect, "acme.one.2")
    effect.attempts = [Attempt(1, 10.0, 10.5, status), Attempt(2, 10.6, 10.7, 200)]
    asked = {("acme", "one"): [("acme.one.1", 10.1), ("acme.one.2", 10.6)]}
    assert verdict(effect, asked=asked).twice == again


@pytest.mark.parametrize(
    ("status", "at", "again"), [(504, 11.2, 0), (504, 10.8, 1), (200, 11.2, 1)]
)
def test_a_question_that_comes_when_its_attempt_has_given_up_shares_no_lease(
    status: int, at: float, again: int
) -> None:
    effect = wanted(ASK)
    decided(effect, "acme.one.2")
    effect.attempts = [Attempt(1, 10.0, 11.0, status), Attempt(2, 10.6, 11.1, 200)]
    asked = {("acme", "one"): [("acme.one.2", 10.7), ("acme.one.1", at)]}
    assert verdict(effect, asked=asked).twice == again


@pytest.mark.parametrize("status", [200, 504])
def test_an_attempt_that_asks_twice_is_found(status: int) -> None:
    effect = wanted(ASK)
    decided(effect, "acme.one.1")
    effect.attempts = [Attempt(1, 10.0, 10.05, status)]
    asked = {("acme", "one"): [("acme.one.1", 10.1), ("acme.one.1", 19.9)]}
    assert verdict(effect, asked=asked).twice == 1


def test_a_result_that_is_not_metered_is_lost_if_it_was_acknowledged() -> None:
    assert verdict(results={("acme", "as"): True}).lost == 1
    assert verdict(results={("acme", "as"): False}).sound


def test_a_service_that_comes_back_too_late_is_not_sound() -> None:
    assert not verdict(returns=[0.1, 5.1]).sound
    assert verdict(returns=[0.1, 4.9]).sound


def test_the_report_says_what_was_seen_and_marks_what_is_no_part_of_the_verdict() -> None:
    effect = wanted()
    answer(effect)
    line = Verdict("a fault", times=1, wanted=1, return_limit_seconds=5.0, loss_counts=False)
    line.about = "Seen: 3 times."
    judge(line, Observed(Ledger(effects=[effect]), (), {}, {}))
    table = Table(0, [line], {line.fault: "What is done."})
    assert line.sound and table.sound, line
    assert "| a fault | 1 | 0 | 0 | 0 | 0 | 1 | 0 | 1* |" in table.markdown
    assert "- **a fault**: What is done. Seen: 3 times.\n" in table.markdown
