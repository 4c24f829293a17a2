"""Is it ready? What is claimed against what was run, and the sentence that says so in the document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from tests.readiness.document import Claim
from tests.readiness.results import Ran


class Fault(StrEnum):
    """Why a test shows nothing, in the words of the document."""

    MISSING = "не существует"
    NOT_RUN = "не запускался"
    STALE = "пройден до последней правки кода"
    NOT_PASSED = "не пройден"


@dataclass(frozen=True, slots=True)
class Finding:
    """A test that does not show its claim."""

    claim: str
    test: str
    fault: Fault

    def __str__(self) -> str:
        return f"{self.claim}: {self.test} {self.fault}"


def judge(
    claims: Iterable[Claim],
    items: Mapping[str, list[str]],
    ran: Ran,
    changed: Mapping[str, float],
) -> list[Finding]:
    """What is not shown. ``items``: test → all of it that there is; ``changed``: test → when its code last was."""
    return [
        Finding(claim.name, test, fault)
        for claim in claims
        for test in claim.tests
        if (fault := _fault(items[test], ran, changed.get(test, 0)))
    ]


def _fault(items: list[str], ran: Ran, changed: float) -> Fault | None:
    if not items:
        return Fault.MISSING
    if any(item in ran.failed for item in items):
        return Fault.NOT_PASSED
    if not all(item in ran.passed for item in items):
        return Fault.NOT_RUN
    if any(ran.passed[item] < changed for item in items):
        return Fault.STALE
    return None


def sentence(claims: list[Claim], findings: list[Finding]) -> str:
    """The status, as it stands in the document."""
    if findings:
        by_claim: dict[str, list[str]] = {}
        for finding in findings:
            by_claim.setdefault(finding.claim, []).append(f"`{finding.test}` {finding.fault}")
        told = "; ".join(f"{claim} ({', '.join(tests)})" for claim, tests in by_claim.items())
        return f"**Статус: не готов.** Не подтверждено: {told}."
    tests = {test for claim in claims for test in claim.tests}
    return (
        "**Статус: готов.** CP2 Gateway готов к эксплуатации: и сам шлюз в работе, и его наблюдаемость\n"
        "(*CP2 Gateway runtime and observability are ready*). Утверждений в документе — "
        f"{len(claims)}, подтверждающих\nтестов — {len(tests)}; в последнем прогоне пройдены все."
    )
