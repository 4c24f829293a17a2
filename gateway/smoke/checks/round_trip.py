"""There and back, for a gateway with a Router and a worker: two decides of a session, the result of an assignment."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from gateway.smoke.client import Answer
from gateway.smoke.contract import ASSIGNMENTS, DECIDE, RESULTS
from gateway.smoke.failures import Failed, Failure, NotChecked
from gateway.smoke.session import Root, Session

_TASK: Final = {"type": "chat", "payload": {"text": "a smoke check, hello"}}
_MOST_MS: Final = 30_000


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """The traces of the first decide and of the assignment."""

    decide: Root
    assignment: Root


def check(session: Session) -> str:
    """Leaves `RoundTrip`."""
    if not session.round_trip:
        raise NotChecked("needs a Router and a worker: give --round-trip where they are")
    trip = RoundTrip(Root(), Root())
    provider = _keeps_a_session(session, trip.decide)
    _brings_a_result(session, trip.assignment, provider)
    session.keep(trip)
    return f"a session stays with {provider}, and an assignment's result comes back"


def decide_again(session: Session) -> Root:
    """One more decide, of another session, for a trace of its own."""
    root = Root()
    _provider(session.post(DECIDE, _session_body(session), root=root))
    return root


def assign_again(session: Session) -> Root:
    """One more assignment, with its result, for a trace of its own."""
    root = Root()
    decided = session.post(DECIDE, _session_body(session), root=Root())
    _brings_a_result(session, root, _provider(decided))
    return root


def _keeps_a_session(session: Session, root: Root) -> str:
    body = _session_body(session)
    answers = [session.post(DECIDE, body, root=each) for each in (root, Root())]
    providers = [_provider(answer) for answer in answers]
    said = [answer.header("X-Sticky") for answer in answers]
    if said != ["miss", "hit"] or len(set(providers)) > 1:
        told = ", then ".join(
            f"{s or 'nothing'} ({p})" for s, p in zip(said, providers, strict=True)
        )
        raise Failed(Failure.SESSION_LOST, f"X-Sticky says {told}; expected miss, then hit")
    return providers[0]


def _session_body(session: Session) -> dict[str, Any]:
    field = session.environ.get("STICKY_SESSION_KEY") or "session_id"
    return {"task": _TASK, "context": {field: f"smoke-{uuid.uuid4().hex}"}}


def _provider(answer: Answer) -> str:
    decision: Any = answer.document().get("decision")
    provider = decision.get("provider_id") if isinstance(decision, dict) else None
    if answer.status != 200 or not isinstance(provider, str):
        raise Failed(Failure.DECIDE_FAILED, f"a decide is answered {answer}")
    return provider


def _brings_a_result(session: Session, root: Root, provider: str) -> None:
    assignment_id = f"smoke-{uuid.uuid4().hex}"
    body = {
        "assignment_id": assignment_id,
        "executor": {"provider_id": provider, "channel": "nats"},
        "job": _TASK,
    }
    answer = session.post(ASSIGNMENTS, body, root=root)
    if answer.status != 202:
        raise Failed(Failure.ASSIGNMENT_FAILED, f"an assignment is answered {answer}")
    # Shorter than the connection waits for an answer: it is the gateway that gives up, and says so.
    wait_ms = min(_MOST_MS, int(session.gateway.timeout_seconds * 800))
    result = session.get(f"{RESULTS}/{assignment_id}?wait_ms={wait_ms}", root=Root())
    if result.status != 200:
        raise Failed(Failure.RESULT_MISSING, f"the result is answered {result} after {wait_ms} ms")
