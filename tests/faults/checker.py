"""The checker: compares what clients were told with what the streams, the bucket and the Router hold."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.executions import Executions, overlapping
from tests.faults.scenarios import Request
from tests.support.nats_session import StoredMessage


@dataclass
class Row:
    """One line of the report: all requests that met one fault."""

    fault: str
    rounds: int = 0
    accepted: int = 0
    stored: int = 0
    duplicates: int = 0
    lost: int = 0
    unknown: int = 0
    """Requests that were not settled, however often they were repeated."""
    attempts: int = 0
    cut: int = 0
    """Attempts that ended without an HTTP answer."""
    longest: float = 0.0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        return not (self.duplicates or self.lost or self.unknown or self.problems)


Places = Mapping[tuple[str, str], Sequence[int]]
"""(subject, assignment_id) → the sequences at which the stream holds it."""


def places(messages: Iterable[StoredMessage]) -> Places:
    """Where each id is."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    for message in messages:
        found[message.subject, json.loads(message.payload)["assignment_id"]].append(message.seq)
    return found


def check(
    requests: Sequence[Request],
    messages: Iterable[StoredMessage],
    executions: Executions,
    lease_seconds: float,
) -> list[Row]:
    """A row for each fault, in the order of the requests."""
    where = places(messages)
    related: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        related[request.assignment_id].append(request)
    rows: dict[str, Row] = {}
    judged: set[tuple[str, str]] = set()
    for request in requests:
        row = rows.setdefault(request.fault, Row(request.fault))
        _count(row, request)
        _check_answers(row, request)
        what = (request.scenario.path, request.assignment_id)
        again = what in judged  # the id was counted with the request that came first under it
        judged.add(what)
        if request.scenario.decides:
            held = _check_decide(row, request)
            if not again:
                shared = executions.of(request.assignment_id)
                wrong = overlapping(shared, related[request.assignment_id], lease_seconds)
                row.duplicates += len(wrong)
                row.problems += [f"{request.assignment_id}: {one}" for one in wrong]
        else:
            sequences = where.get((request.scenario.subject, request.assignment_id), ())
            held = _check_place(row, request, sequences, again=again)
        row.stored += held
        if request.accepted and not held:
            row.lost += 1
    return list(rows.values())


def _count(row: Row, request: Request) -> None:
    row.rounds += 1
    row.attempts += len(request.attempts)
    row.cut += sum(attempt.answer is None for attempt in request.attempts)
    row.accepted += bool(request.accepted)
    if request.seconds == float("inf"):
        row.unknown += 1
        last = request.attempts[-1].answer
        row.problems.append(f"{request.assignment_id}: not settled, last answer: {last}")
    else:
        row.longest = max(row.longest, request.seconds)


def _check_answers(row: Row, request: Request) -> None:
    """Every 2xx of one request is the same, and the one that its scenario says."""
    answers = [attempt.answer for attempt in request.accepted if attempt.answer is not None]
    bodies = {json.dumps(answer.json(), sort_keys=True) for answer in answers}
    if len(bodies) > 1:
        row.problems.append(f"{request.assignment_id}: answers differ: {sorted(bodies)}")
    fresh = [answer for answer in answers if answer.header("Idempotency-Replayed") is None]
    if len(fresh) > 1:
        row.problems.append(f"{request.assignment_id}: {len(fresh)} answers claim to be the first")
    for answer in answers:
        emitted = request.scenario.decides or answer.json()["emitted"] is request.scenario.emitted
        if answer.status != request.scenario.status or not emitted:
            row.problems.append(f"{request.assignment_id}: unexpected: {answer}")
    for attempt in request.attempts:
        if attempt.settled and not attempt.accepted:
            row.problems.append(f"{request.assignment_id}: refused: {attempt.answer}")
        if attempt.answer is not None and attempt.answer.status == 500:
            row.problems.append(f"{request.assignment_id}: {attempt.answer}")


def _check_place(row: Row, request: Request, sequences: Sequence[int], *, again: bool) -> bool:
    """Whether the message is on its stream, where every receipt says."""
    if len(sequences) > 1 and not again:
        row.duplicates += len(sequences) - 1
        row.problems.append(f"{request.assignment_id}: stored at {list(sequences)}")
    told = {attempt.answer.json()["seq"] for attempt in request.accepted if attempt.answer}
    if sequences and told <= {sequences[0]}:
        return True
    if request.accepted:
        row.problems.append(
            f"{request.assignment_id}: told {sorted(told)}, stored at {list(sequences)}"
        )
    return False


def _check_decide(row: Row, request: Request) -> bool:
    """Whether the bucket holds the outcome that the client was given."""
    answers = [attempt.answer.json() for attempt in request.accepted if attempt.answer]
    if answers and answers[0] == request.stored_outcome:
        return True
    if answers:
        row.problems.append(
            f"{request.assignment_id}: answered {answers[0]}, kept {request.stored_outcome}"
        )
    return False
