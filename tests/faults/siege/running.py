"""Running: one kind of fault from the first round to its verdict."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tests.faults.siege.kinds import Kind
from tests.faults.siege.site import running_site
from tests.faults.siege.verdict import Verdict, judge

Progress = Callable[[str], None]
_WARM_SECONDS = 0.5
_BETWEEN_SECONDS = 0.25


def run(kind: Kind, times: int, seed: int, progress: Progress) -> Verdict:
    """Strike ``times`` times under load, then judge. What goes wrong in the program itself is a problem of the line:
    the other kinds go on."""
    begun = time.monotonic()
    verdict = Verdict(
        kind.name,
        wanted=times,
        return_limit_seconds=kind.return_seconds,
        loss_counts=kind.loss_counts,
    )
    returns: list[float] = []
    try:
        with contextlib.ExitStack() as stack:
            plan = stack.enter_context(kind.plan())
            site = stack.enter_context(running_site(plan, seed))
            site.await_service(kind.return_seconds)
            time.sleep(_WARM_SECONDS)
            for number in range(times):
                kind.strike(site)
                verdict.times += 1
                returns.append(site.await_service(kind.return_seconds))
                progress(f"{kind.name}: {number + 1} of {times}, back in {returns[-1]:.2f} s")
                if site.problems:
                    break
                time.sleep(site.dice.uniform(0.0, 2 * _BETWEEN_SECONDS))
            if kind.afterwards is not None:
                kind.afterwards(site)
            seen = [f"{what}: {count} times." for what, count in site.seen.items()]
            verdict.about = " ".join(filter(None, (plan.about, *seen)))
            judge(verdict, site.observe(returns))
    except Exception as error:
        verdict.problems.append(f"the program failed: {type(error).__name__}: {error}")
        for note in getattr(error, "__notes__", ()):
            verdict.problems.append(note)
    verdict.seconds = time.monotonic() - begun
    return verdict
