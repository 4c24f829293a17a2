"""The verdict on one kind of fault: what clients were told, against what the streams and the Router hold."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.faults.siege.clients import Late, Ledger
from tests.faults.siege.effects import (
    ASK,
    BATCH,
    BY_SUBJECT,
    METER,
    OPERATIONS,
    Attempt,
    Effect,
)
from tests.support.nats_session import StoredMessage

_EXAMPLES: Final = 12

Place = tuple[str, str, str]
"""(operation, tenant, id)"""


@dataclass(frozen=True)
class Excuse:
    """Requests on these connections, by the client's port, were at a process that was frozen from … to … (s)."""

    ports: frozenset[int]
    since: float
    until: float

    def covers(self, late: Late) -> bool:
        begun, ended = late.sent, late.sent + late.seconds
        return late.port in self.ports and begun < self.until and ended > self.since


@dataclass
class Observed:
    """All that is known about one kind of fault after its last round."""

    ledger: Ledger
    messages: Sequence[StoredMessage]
    """Of all streams with effects, each with its own sequences."""
    asked: Mapping[tuple[str, str], Sequence[tuple[str, float]]]
    """(tenant, id) → each decide that the Router got: its request id, and when."""
    results: Mapping[tuple[str, str], bool]
    """(tenant, assignment) of each result that a worker published → whether the stream acknowledged it."""
    excuses: Sequence[Excuse] = ()
    returns: Sequence[float] = ()
    """Seconds from the end of each round's fault until every instance served again."""
    problems: Sequence[str] = ()
    lease_seconds: float = 2.0


@dataclass
class Verdict:
    """One line of the table."""

    fault: str
    times: int = 0
    wanted: int = 0
    requests: int = 0
    answered: int = 0
    """2xx."""
    refused: int = 0
    """Any other answer."""
    cut: int = 0
    """Requests that ended without an answer."""
    effects: int = 0
    """Acknowledged to a client: published, or decided with an id."""
    results: int = 0
    """Of workers, acknowledged by the stream."""
    lost: int = 0
    twice: int = 0
    late: int = 0
    crossed: int = 0
    unsettled: int = 0
    excused: int = 0
    worst_return_seconds: float = 0.0
    return_limit_seconds: float = 0.0
    slowest_seconds: float = 0.0
    lag_seconds: float = 0.0
    seconds: float = 0.0
    about: str = ""
    """What was found out about the site, a sentence for the report."""
    loss_counts: bool = True
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        losses = (self.lost + self.twice + self.unsettled) if self.loss_counts else 0
        return not (
            losses
            or self.late
            or self.crossed
            or self.problems
            or self.times < self.wanted
            or self.worst_return_seconds > self.return_limit_seconds
        )

    @property
    def failures(self) -> list[str]:
        """What is not as it should be, in words."""
        counts = {
            "acknowledged effects lost": self.lost if self.loss_counts else 0,
            "effects twice": self.twice if self.loss_counts else 0,
            "effects never settled": self.unsettled if self.loss_counts else 0,
            "requests past deadline + 0.5 s": self.late,
            "answers crossed": self.crossed,
        }
        found = [f"{count} {what}" for what, count in counts.items() if count]
        if self.times < self.wanted:
            found.append(f"struck {self.times} of {self.wanted} times")
        if self.worst_return_seconds > self.return_limit_seconds:
            found.append(
                f"back after {self.worst_return_seconds:.1f} s (at most {self.return_limit_seconds:.0f})"
            )
        return found + self.problems


def judge(verdict: Verdict, observed: Observed) -> Verdict:
    """Fill in the line. ``verdict`` comes with its name, its bounds and what was wanted."""
    ledger = observed.ledger
    examples: list[str] = []
    verdict.requests = ledger.requests
    verdict.answered = sum(n for status, n in ledger.statuses.items() if status < "300")
    verdict.refused = sum(n for status, n in ledger.statuses.items() if status >= "300")
    verdict.cut = ledger.cut
    verdict.slowest_seconds = ledger.slowest_seconds
    verdict.lag_seconds = ledger.lag_seconds
    verdict.worst_return_seconds = max(observed.returns, default=0.0)
    for late in ledger.late:
        if any(excuse.covers(late) for excuse in observed.excuses):
            verdict.excused += 1
            continue
        verdict.late += 1
        examples.append(f"late: {late}")
    verdict.crossed = len(ledger.crossed)
    examples += [f"crossed: {one}" for one in ledger.crossed]
    places = _places(observed.messages, verdict, examples)
    for effect in ledger.effects:
        operation = OPERATIONS[effect.operation]
        strange = effect.wrong + (effect.unexpected if verdict.loss_counts else [])
        verdict.problems += [f"{effect.tenant} {effect.id}: {one}" for one in strange[:1]]
        if not operation.key:
            continue
        if not effect.settled and effect.asked:
            verdict.unsettled += 1
            examples.append(f"never settled: {effect}")
        if effect.refused:
            verdict.problems.append(f"{effect.tenant} {effect.id}: refused: {effect.refused}")
        verdict.effects += bool(effect.answers)
        if operation is BATCH:
            wrong = _lost_events(effect, places)
        else:
            wrong = _lost(effect, places.get((effect.operation, effect.tenant, effect.id), []))
        verdict.lost += bool(wrong)
        examples += wrong
        if effect.firsts > 1:
            verdict.twice += 1
            examples.append(f"{effect.firsts} answers claim to be the first: {effect}")
        if operation is ASK:
            asked = observed.asked.get((effect.tenant, effect.id), ())
            again = _asked_again(effect, asked, observed.lease_seconds)
            verdict.twice += len(again)
            examples += again
    _judge_results(observed.results, places, verdict, examples)
    verdict.problems += observed.problems
    verdict.problems = verdict.problems[:_EXAMPLES] + [
        one[:600] for one in examples[:_EXAMPLES] if verdict.loss_counts or "late" in one
    ]
    return verdict


def _places(
    messages: Iterable[StoredMessage], verdict: Verdict, examples: list[str]
) -> dict[Place, list[int]]:
    """Where each effect is stored; a second place, and one of another tenant's, is noted."""
    found: dict[Place, list[int]] = defaultdict(list)
    for message in messages:
        operation = BY_SUBJECT.get(message.subject)
        if operation is None:
            continue
        document = json.loads(message.payload)
        key = "assignment_id" if operation is METER else operation.key
        tenant = document.get("tenant_id", "")
        named = (
            document.get("metadata", {}).get("of"),
            document.get("reason"),
            document.get("provider_id"),
        )
        of = next(filter(None, named), tenant)
        if tenant != message.headers.get("tenant_id") or of != tenant:
            verdict.crossed += 1
            examples.append(f"crossed: on the stream: {message}")
        where = found[operation.name, tenant, document[key]]
        where.append(message.seq)
        if len(where) > 1:
            verdict.twice += 1
            examples.append(f"stored twice: {operation.name} {document[key]} at {where}")
    return found


def _lost(effect: Effect, where: list[int]) -> list[str]:
    """What is missing of what clients were told."""
    if not effect.answers:
        return []
    if effect.operation == ASK.name:
        if len(effect.answers) > 1:
            return [f"decided differently: {effect}"]
        return []
    wrong = set(effect.answers) - {str(seq) for seq in where[:1]}
    return [f"lost: told {sorted(effect.answers)}, stored at {where}: {effect}"] if wrong else []


def _lost_events(effect: Effect, places: Mapping[Place, Sequence[int]]) -> list[str]:
    """What is missing of a batch, also of one that was accepted in part only."""
    wrong = []
    for name, told in effect.places.items():
        where = places.get((METER.name, effect.tenant, name), ())
        if told != {str(seq) for seq in where[:1]}:
            wrong.append(f"lost: of a batch, {name}: told {sorted(told)}, stored at {list(where)}")
    return wrong


def _asked_again(
    effect: Effect, asked: Sequence[tuple[str, float]], lease_seconds: float
) -> list[str]:
    """Calls of the Router that shared a lease: an attempt with a 5xx has given its own back."""
    attempts = {f"{effect.tenant}.{effect.id}.{one.number}": one for one in effect.attempts}
    wrong = []
    seen: set[str] = set()
    in_time: list[tuple[Attempt, float]] = []
    for name, at in asked:
        attempt = attempts.get(name)
        if attempt is None or name in seen:
            wrong.append(f"asked twice: {name}: {effect}")
        # A frozen NATS keeps a question, and delivers it when its attempt has given up long ago.
        elif attempt.status < 500 or at <= attempt.ended:
            in_time.append((attempt, at))
        seen.add(name)
    for (first, _), (second, at) in itertools.pairwise(in_time):
        if first.status < 500 and at < first.sent + lease_seconds:
            after = at - first.sent
            wrong.append(f"asked again after {after:.3f} s: {effect.id}: {first}, then {second}")
    return wrong


def _judge_results(
    results: Mapping[tuple[str, str], bool],
    places: Mapping[Place, Sequence[int]],
    verdict: Verdict,
    examples: list[str],
) -> None:
    """Each acknowledged result yields one usage event; twice is found by `_places`."""
    for (tenant, assignment), acknowledged in results.items():
        verdict.results += acknowledged
        if acknowledged and not places.get((METER.name, tenant, assignment)):
            verdict.lost += 1
            examples.append(f"lost: the result of {tenant} {assignment} was not metered")
