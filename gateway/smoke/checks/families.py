"""The contract's metrics are there, with its types and labels, and count the checks' own requests.

Others may use the gateway meanwhile: a value must have moved by *at least* what the checks did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from gateway.smoke.checks.formats import Before
from gateway.smoke.checks.round_trip import RoundTrip
from gateway.smoke.contract import FAMILIES, PHASED, By, Family
from gateway.smoke.exposition import Exposition
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.polling import first_without_failure
from gateway.smoke.session import Session

_KEY_TYPED = "key_type"


def check(session: Session) -> str:
    """Families that nobody has written yet are looked at when they are there."""
    before = session.evidence(Before).metrics
    writers = {By.USAGE} | ({By.ROUND_TRIP} if session.found(RoundTrip) else set())
    written = [family for family in FAMILIES if family.written_by in writers]

    def look(now: Exposition) -> None:
        for family in FAMILIES:
            _compare_form(family, now)
        for family in written:
            _compare_values(family, before, now, _where(family, session))

    first_without_failure(session, look)
    idle = len(FAMILIES) - len(written)
    rest = f"; {idle} more are written by a decide and an assignment (--round-trip)" if idle else ""
    return f"{len(written)} metrics have the contract's types and labels, and count{rest}"


def _compare_form(family: Family, now: Exposition) -> None:
    found = now.samples.get(family.counted)
    if not found:
        return
    if now.kinds[family.counted] != family.kind:
        raise Failed(
            Failure.METRICS_TYPE_WRONG,
            f"{family.name} is declared {now.kinds[family.counted]}, not {family.kind}",
        )
    for labels in found:
        names = {name for name, _ in labels}
        if names != family.labels:
            raise Failed(
                Failure.METRICS_LABELS_WRONG,
                f"{family.name} {'; '.join(_differences(family, names))}",
            )


def _compare_values(
    family: Family, before: Exposition, now: Exposition, where: Mapping[str, str]
) -> None:
    if not now.samples.get(family.counted):
        raise Failed(Failure.METRICS_FAMILY_MISSING, f"{family.name} is not there")
    if _KEY_TYPED in family.labels:
        return  # by tenant: `gateway.smoke.checks.counters`
    moved = now.total(family.counted, where) - before.total(family.counted, where)
    if moved < family.at_least:
        labels = ", ".join(f'{name}="{value}"' for name, value in sorted(where.items()))
        raise Failed(
            Failure.METRICS_STILL,
            f"{family.counted}{{{labels}}} moved by {moved:g}, and the checks' requests are {family.at_least}",
        )


def _where(family: Family, session: Session) -> dict[str, str]:
    phase = {"cp_phase": session.cp_phase} if family.labels >= PHASED else {}
    return {**family.where, **phase}


def _differences(family: Family, names: set[str]) -> Iterator[str]:
    if missing := sorted(family.labels - names):
        yield f"lacks the label {', '.join(missing)}"
    if more := sorted(names - family.labels):
        yield f"has the label {', '.join(more)}, which is not the contract's"
