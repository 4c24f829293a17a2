"""The checks in their order, and how a run goes through them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from gateway.smoke.checks import (
    collector,
    counters,
    families,
    formats,
    identity,
    once,
    probes,
    round_trip,
    stream,
    traces,
)
from gateway.smoke.failures import NOT_CHECKED, PASSED, Failed, Failure, NotChecked
from gateway.smoke.session import Session


class Outcome(StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, slots=True)
class Check:
    """A check, and the ones without which there is nothing to look at."""

    name: str
    run: Callable[[Session], str]
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a check."""

    check: str
    outcome: Outcome
    message: str
    failure: Failure | None
    seconds: float


_AT_THE_GATEWAY: Final = (
    Check("livez", probes.livez),
    Check("readyz", probes.readyz, needs=("livez",)),
    Check("metrics", formats.check, needs=("livez",)),
    Check("identity", identity.check, needs=("readyz",)),
    Check("once", once.check, needs=("identity",)),
    Check("stream", stream.check, needs=("once",)),
    Check("round-trip", round_trip.check, needs=("identity",)),
    Check("families", families.check, needs=("metrics", "once")),
    Check("counters", counters.check, needs=("metrics", "once")),
)
_TRACES: Final = Check("traces", traces.check, needs=("once",))
_COLLECTOR: Final = Check("collector", collector.check)


def plan(*, traces: bool, listening: bool) -> tuple[Check, ...]:
    """The checks of a run. Where nothing can be received, the collector is asked instead."""
    if not traces:
        return _AT_THE_GATEWAY
    return (*_AT_THE_GATEWAY, _TRACES) if listening else (*_AT_THE_GATEWAY, _TRACES, _COLLECTOR)


def run(checks: Sequence[Check], session: Session) -> Iterator[Result]:
    """Run one after the other; each result as soon as it is there."""
    passed: set[str] = set()
    for check in checks:
        began = time.monotonic()
        outcome, failure = Outcome.PASSED, None
        lacking = [needed for needed in check.needs if needed not in passed]
        try:
            if lacking:
                raise NotChecked(f"needs {' and '.join(lacking)}")
            message = check.run(session)
        except NotChecked as reason:
            outcome, message = Outcome.NOT_CHECKED, str(reason)
        except Failed as failed:
            outcome, message, failure = Outcome.FAILED, str(failed), failed.failure
        else:
            passed.add(check.name)
        yield Result(check.name, outcome, message, failure, time.monotonic() - began)


def exit_code(results: Sequence[Result], *, strict: bool) -> int:
    """That of the first failure; without any, whether everything was checked if that was asked for."""
    for result in results:
        if result.failure is not None:
            return result.failure.exit_code
    unchecked = any(result.outcome is Outcome.NOT_CHECKED for result in results)
    return NOT_CHECKED if strict and unchecked else PASSED
