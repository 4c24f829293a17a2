"""What a run prints: a line a check for people, as soon as it is known; or one JSON object for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from gateway.smoke.failures import NOT_CHECKED
from gateway.smoke.plan import Outcome, Result

_MARKS: Final = {Outcome.PASSED: "ok", Outcome.FAILED: "FAILED", Outcome.NOT_CHECKED: "-"}
_WIDTH: Final = max(map(len, _MARKS.values()))
_NAMES: Final = 10


def line(result: Result) -> str:
    """One line for a person."""
    code = f" [{result.failure.exit_code} {result.failure.slug}]" if result.failure else ""
    unseen = "not checked: " if result.outcome is Outcome.NOT_CHECKED else ""
    mark = _MARKS[result.outcome]
    return f"{mark:<{_WIDTH}}  {result.check:<{_NAMES}}  {unseen}{result.message}{code}"


def last_line(results: Sequence[Result], exit_code: int) -> str:
    """The end, for a person: all well, or the first failure, its code and where to look."""
    failed = [result for result in results if result.failure is not None]
    if failed:
        first = failed[0].failure
        assert first is not None
        return f"smoke: {len(failed)} of {len(results)} checks failed; exit code {exit_code}. {first.remedy}"
    unseen = sum(result.outcome is Outcome.NOT_CHECKED for result in results)
    told = f"{len(results) - unseen} checks passed" + (f", {unseen} not made" if unseen else "")
    strict = f"; exit code {exit_code} (--strict)" if exit_code == NOT_CHECKED else ""
    return f"smoke: {told}{strict}"


def document(url: str, results: Sequence[Result], exit_code: int) -> str:
    """All of it for machines."""
    return json.dumps(
        {
            "ok": exit_code == 0,
            "exit_code": exit_code,
            "url": url,
            "checks": [
                {
                    "check": result.check,
                    "outcome": result.outcome,
                    "message": result.message,
                    "exit_code": result.failure.exit_code if result.failure else None,
                    "failure": result.failure.slug if result.failure else None,
                    "seconds": round(result.seconds, 3),
                }
                for result in results
            ],
        },
        indent=2,
        ensure_ascii=False,
    )
