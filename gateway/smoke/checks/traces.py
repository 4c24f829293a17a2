"""The traces of the checks' own requests arrive at the checks' own receiver, with the contract's spans.

A gateway sends its traces where its ``OTEL_EXPORTER_OTLP_ENDPOINT`` says: that must be the receiver's address
(``--otlp-listen``). An exporter that has just found its collector again may lose the batch that it had in hand, so a
trace of which nothing comes is asked for once more, by a request of its own; one that is incomplete is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from gateway.smoke.checks.identity import Tenants
from gateway.smoke.checks.once import Metered, send_another
from gateway.smoke.checks.round_trip import RoundTrip, assign_again, decide_again
from gateway.smoke.contract import CONSUME, EVERYWHERE, PUBLISH, REQUEST, SERVER, Expected
from gateway.smoke.failures import Failed, Failure, NotChecked
from gateway.smoke.session import Root, Session
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from gateway.telemetry.tracing.otlp.spans import Span

_HOW = "give --otlp-listen with the address in the gateway's OTEL_EXPORTER_OTLP_ENDPOINT"
_SHORTEST_CREDENTIAL = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the trace of one request must hold: its server span, and below it ``spans``."""

    request: str
    root: Root
    spans: tuple[Expected, ...]
    again: Callable[[Session], Root]


def check(session: Session) -> str:
    """Waits until all of it is there; what is still missing then is told."""
    receiver = session.receiver
    if receiver is None:
        raise NotChecked(_HOW)
    wanted, lost = list(_wanted(session)), list[str]()
    troubles = _wait(session, receiver, wanted)
    if troubles and not receiver.complaints():
        came = {span.trace_id for span in receiver.spans()}
        lost = [each.request for each in wanted if each.root.trace_id not in came]
        wanted = [
            replace(each, root=each.again(session)) if each.request in lost else each
            for each in wanted
        ]
        troubles = _wait(session, receiver, wanted)
    if troubles:
        raise _explained(troubles[0], receiver)
    _compare_credentials(session, receiver)
    names = ", ".join(dict.fromkeys(str(s) for each in wanted for s in (SERVER, *each.spans)))
    note = (
        f"; nothing came of the first trace of {' and '.join(lost)}, asked for again"
        if lost
        else ""
    )
    return f"{len(wanted)} of {len(wanted)} traces came over {receiver.protocol}: {names}{note}"


def _wait(session: Session, receiver: OtlpReceiver, wanted: Sequence[Wanted]) -> list[Failed]:
    """Wait for half of the session's time; what is wrong then. Nothing: all is there."""
    with suppress(TimeoutError):
        receiver.wait_for(
            lambda spans: not any(_troubles(wanted, spans, _values(session))),
            session.wait_seconds / 2,
        )
    return _troubles_now(session, receiver, wanted)


def _troubles_now(
    session: Session, receiver: OtlpReceiver, wanted: Sequence[Wanted]
) -> list[Failed]:
    return list(_troubles(wanted, receiver.spans(), _values(session)))


def _wanted(session: Session) -> Iterator[Wanted]:
    yield Wanted("the usage event", session.evidence(Metered).root, (PUBLISH,), send_another)
    trip = session.found(RoundTrip)
    if trip is not None:
        yield Wanted("the decide", trip.decide, (REQUEST,), decide_again)
        yield Wanted("the assignment", trip.assignment, (PUBLISH, CONSUME), assign_again)


def _values(session: Session) -> dict[str, Any]:
    """What an attribute must be, where it is known."""
    return {"tenant_id": session.evidence(Tenants).own, "cp_phase": session.cp_phase}


def _troubles(
    wanted: Sequence[Wanted], spans: Sequence[Span], values: dict[str, Any]
) -> Iterator[Failed]:
    for each in wanted:
        trace = [span for span in spans if span.trace_id == each.root.trace_id]
        if not trace:
            yield Failed(
                Failure.TRACE_MISSING,
                f"the trace of {each.request} ({each.root.trace_id}) did not come",
            )
            continue
        servers = [s for s in trace if _is(SERVER, s) and s.parent_id == each.root.span_id]
        yield from _one_of(
            SERVER, servers, values, each.request, any(_is(SERVER, s) for s in trace)
        )
        for expected in each.spans:
            named = [s for s in trace if _is(expected, s)]
            below = [
                s for s in named if _is_below(s, servers, trace, strict=expected is not CONSUME)
            ]
            yield from _one_of(expected, below, values, each.request, bool(named))


def _one_of(
    expected: Expected, found: Sequence[Span], values: dict[str, Any], request: str, elsewhere: bool
) -> Iterator[Failed]:
    """Nothing if one of ``found`` is as expected; else what is wrong."""
    if not found and elsewhere:
        yield Failed(
            Failure.SPAN_PARENT, f"the {expected} of {request} is not below what led to it"
        )
    elif not found:
        yield Failed(Failure.SPAN_MISSING, f"the trace of {request} has no {expected}")
    elif not any(not list(_wrong(expected, span, values)) for span in found):
        wrong = ", ".join(_wrong(expected, found[0], values))
        yield Failed(Failure.SPAN_ATTRIBUTES, f"the {expected} of {request} {wrong}")


def _wrong(expected: Expected, span: Span, values: dict[str, Any]) -> Iterator[str]:
    for name in (*EVERYWHERE, *expected.attributes):
        value = span.attributes.get(name)
        if value is None or value == "":
            yield f"lacks {name}"
        elif name in values and value != values[name]:
            yield f"has {name}={value!r}, not {values[name]!r}"


def _is(expected: Expected, span: Span) -> bool:
    return expected.name in (None, span.name) and expected.kind in (None, span.kind)


def _is_below(
    span: Span, ancestors: Sequence[Span], trace: Sequence[Span], *, strict: bool
) -> bool:
    """Whether the parents of ``span`` lead to one of ``ancestors``.

    Not ``strict``: or out of what is known of the trace, by a worker that does not send its spans here.
    """
    known = {each.span_id: each for each in trace}
    ends = {each.span_id for each in ancestors}
    seen: set[str] = set()
    parent = span.parent_id
    while parent and parent not in seen:
        if parent in ends:
            return True
        if parent not in known:
            return not strict
        seen.add(parent)
        parent = known[parent].parent_id
    return False


def _explained(trouble: Failed, receiver: OtlpReceiver) -> Failed:
    """The trouble that is left at the end, or what explains it."""
    if receiver.spans():
        return trouble
    address = f"the receiver at {receiver.address} ({receiver.protocol})"
    if complaints := receiver.complaints():
        return Failed(
            Failure.TRACES_WRONG_PROTOCOL, f"{address} understands nothing: {'; '.join(complaints)}"
        )
    return Failed(Failure.TRACES_NONE, f"nothing came to {address}")


def _compare_credentials(session: Session, receiver: OtlpReceiver) -> None:
    secrets = _secrets(session.caller) | _secrets(session.other_caller or {})
    for span in receiver.spans():
        told = repr(span)
        if any(secret in told for secret in secrets):
            raise Failed(
                Failure.SPAN_LEAKS, f"the span {span.name} holds the credential of its request"
            )


def _secrets(caller: Mapping[str, str]) -> set[str]:
    names = ("authorization", "x-api-key")
    values = (value.rpartition(" ")[2] for name, value in caller.items() if name.lower() in names)
    return {value for value in values if len(value) >= _SHORTEST_CREDENTIAL}
