"""Every kind of fault, under constant load with repeats, and what became of the effects.

    python -m tests.faults                                      all, as `make faults`, until requests are enough
    python -m tests.faults --only nats-killed --times 3         one kind (its name, or a part of it)
    python -m tests.faults --soak 20                            all in random order, for so many minutes
    python -m tests.faults --list                               the kinds

Writes reports/faults.md and reports/faults.json. Exit code 1 if anything is not sound.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.faults.siege.all_kinds import KINDS
from tests.faults.siege.kinds import Kind
from tests.faults.siege.mounts import have_own_mounts
from tests.faults.siege.running import run
from tests.faults.siege.table import Table
from tests.faults.siege.verdict import Verdict

REPORTS: Final = Path(__file__).resolve().parents[2] / "reports"
LEAST_REQUESTS: Final = 500_000
_SOAK_TIMES: Final = 3


def slug(name: str) -> str:
    """A kind's name as it is given to ``--only``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def chosen(only: Sequence[str]) -> list[Kind]:
    """The kinds whose name has one of ``only`` in it; all if it is empty. One that is none's ends the program."""
    for one in only:
        if not any(slug(one) in slug(kind.name) for kind in KINDS):
            sys.exit(f"no kind of fault is called {one!r}; see --list")
    return [kind for kind in KINDS if not only or any(slug(one) in slug(kind.name) for one in only)]


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument(
        "--only", action="append", default=[], metavar="KIND", help="may be repeated"
    )
    parser.add_argument("--times", type=int, help="how often each; default: as each kind says")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="random order, so long")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--reports", type=Path, default=REPORTS, help=f"default {REPORTS}")
    parser.add_argument("--list", action="store_true", help="print the kinds, and end")
    given = parser.parse_args(arguments)
    kinds = chosen(given.only)
    if given.list:
        for kind in kinds:
            print(f"{slug(kind.name):<32} {kind.times:>3} times  {kind.note}")
        return 0
    begun = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - begun:>6.0f} s  {line}", flush=True)

    table = Table(given.seed)
    progress(f"seed {given.seed}")
    dice = random.Random(given.seed)
    whole = not given.only and given.times is None and given.soak is None
    table.least_requests = LEAST_REQUESTS if whole else 0
    queue = list(kinds)
    while queue:
        kind = queue.pop(0)
        times = given.times or (min(kind.times, _SOAK_TIMES) if given.soak else kind.times)
        verdict = run(kind, times, given.seed + len(table.verdicts), progress)
        table.notes[kind.name] = kind.note
        table.verdicts.append(verdict)
        progress(_told(verdict))
        table.seconds = time.monotonic() - begun
        table.write(given.reports)  # whatever happens later
        if given.soak and not queue and time.monotonic() - begun < given.soak * 60:
            queue = dice.sample(kinds, len(kinds))
        if given.soak and time.monotonic() - begun >= given.soak * 60:
            break
        if not queue and table.requests < table.least_requests and all_sound(table):
            queue = [dice.choice(kinds)]  # a slow machine makes some once more
    text, data = table.write(given.reports)
    print(f"\n{table.markdown}\nwritten to {text} and {data}")
    return 0 if table.sound else 1


def all_sound(table: Table) -> bool:
    """Whether every line is, however few requests there are yet; and some are: else there would be no end."""
    return all(one.sound and one.requests for one in table.verdicts)


def _told(one: Verdict) -> str:
    word = "sound" if one.sound else "NOT SOUND: " + "; ".join(one.failures)
    return (
        f"{one.fault}: {one.times} times in {one.seconds:.0f} s, {one.requests:,} requests,"
        f" {one.effects:,} effects, {one.results} results; lost {one.lost}, twice {one.twice}, late {one.late}"
        f" (excused {one.excused}), crossed {one.crossed}; slowest {one.slowest_seconds:.2f} s,"
        f" clients' lag {one.lag_seconds:.2f} s; {word}"
    )


if __name__ == "__main__":
    have_own_mounts("tests.faults", sys.argv[1:])
    sys.exit(main(sys.argv[1:]))
