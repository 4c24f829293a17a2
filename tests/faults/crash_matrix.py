"""The crash matrix: kill a worker, or NATS, at every event of a request, and count what became of it.

    python -m tests.faults.crash_matrix                 the long form, as `make faults` runs it
    python -m tests.faults.crash_matrix --short         one round a position

Learns which events one undisturbed request has on its NATS connection, then strikes right before and right after each
of them. Exit code 1 if anything was lost, stored or executed twice, answered differently or never.
"""

from __future__ import annotations

import argparse
import contextlib
import queue
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.faults import random_kills
from tests.faults.checker import Row, check
from tests.faults.lane import LEASE_SECONDS, UNDISTURBED, Lane, Victim, lane
from tests.faults.report import Report, merge
from tests.faults.scenarios import ALL, FIRST_CALLS, Scenario
from tests.support.faults_trail import Position, positions

ROUNDS: Final = 20
KILLS: Final = 200
SHORT_KILLS: Final = 20
_TRIES: Final = 3
"""How many times more rounds may be needed than wanted: one can be settled before it comes to its position."""
REPORTS: Final = Path(__file__).resolve().parents[2] / "reports" / "faults"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """One position of one scenario, and what is killed there."""

    scenario: Scenario
    victim: Victim
    position: Position

    def __str__(self) -> str:
        return f"{self.scenario.name}: {self.victim}, {self.position}"


class Matrix:
    """All cells, worked off by several lanes at once."""

    def __init__(self, scenarios: Sequence[Scenario], rounds: int, lanes: int, seed: int) -> None:
        self._scenarios = scenarios
        self._rounds = rounds
        self._lanes = lanes
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self._cells: queue.SimpleQueue[Cell] | None = None
        self._total = 0
        self._done = 0
        self.report = Report(seed)

    def run(self, progress: Progress) -> list[list[Row]]:
        """Every cell; the rows of each lane."""
        with ThreadPoolExecutor(self._lanes, thread_name_prefix="lane") as pool:
            working = [
                pool.submit(self._work, f"lane-{number}", progress) for number in range(self._lanes)
            ]
            return [one.result() for one in working]

    def _work(self, name: str, progress: Progress) -> list[Row]:
        with lane(name) as one:
            cells = self._learn(one, progress)
            while (cell := self._take(cells)) is not None:
                try:
                    self._strike(one, cell)
                except BaseException:
                    while self._take(cells) is not None:
                        pass  # the other lanes need not go on
                    raise
                with self._lock:
                    self._done += 1
                    progress(f"{self._done:>3} of {self._total}  {cell}")
            return check(one.requests, one.stored(), one.executions, LEASE_SECONDS)

    def _learn(self, one: Lane, progress: Progress) -> queue.SimpleQueue[Cell]:
        """The cells, made by the first lane; all lanes must have learned the same."""
        ways = {scenario.name: one.learn(scenario) for scenario in self._scenarios}
        with self._lock:
            if self._cells is None:
                self.report.ways = ways
                cells = [
                    Cell(scenario, victim, position)
                    for scenario in self._scenarios
                    for victim in Victim
                    for position in positions(len(ways[scenario.name]))
                ]
                self._dice.shuffle(cells)
                self._total = len(cells)
                self._cells = queue.SimpleQueue()
                for cell in cells:
                    self._cells.put(cell)
                progress(f"{len(cells)} positions, {self._rounds} kills each")
            assert ways == self.report.ways, f"{ways} is not {self.report.ways}"
            return self._cells

    def _take(self, cells: queue.SimpleQueue[Cell]) -> Cell | None:
        with contextlib.suppress(queue.Empty):
            return cells.get_nowait()
        return None

    def _strike(self, one: Lane, cell: Cell) -> None:
        struck = 0
        for _ in range(self._rounds * _TRIES):
            struck += one.round(cell.scenario, cell.victim, cell.position)
            if struck == self._rounds:
                break
        with self._lock:
            self.report.struck[str(cell)] = struck
            if struck < self._rounds:
                self.report.missed.append(f"{cell}: {struck} of {self._rounds}")


def run(
    *,
    rounds: int = ROUNDS,
    kills: int = KILLS,
    scenarios: Sequence[Scenario] = ALL,
    lanes: int = 3,
    seed: int,
    progress: Progress = lambda line: None,
) -> Report:
    """The matrix, then the kills at random moments."""
    begun = time.monotonic()
    matrix = Matrix(scenarios, rounds, lanes, seed)
    parts = matrix.run(progress)
    report = matrix.report
    if kills:
        rows, killed = random_kills.run(kills, seed, progress)
        parts.append(rows)
        report.struck[random_kills.FAULT] = killed
        if killed < kills:
            report.missed.append(f"{random_kills.FAULT}: {killed} of {kills}")
    faults = [f"{scenario.name}: {victim}" for scenario in scenarios for victim in Victim]
    report.rows = merge(parts, [UNDISTURBED, *faults, random_kills.FAULT])
    report.seconds = time.monotonic() - begun
    return report


def main(arguments: Sequence[str]) -> int:
    """The program; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.crash_matrix")
    parser.add_argument(
        "--rounds",
        type=int,
        help=f"kills at each position (default {ROUNDS})",
    )
    parser.add_argument("--kills", type=int, help=f"kills at random moments (default {KILLS})")
    parser.add_argument(
        "--short", action="store_true", help="first calls only, once a position, 20 random kills"
    )
    parser.add_argument("--lanes", type=int, default=3, help="stacks at work at once (default 3)")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--reports", type=Path, default=REPORTS, help=f"default {REPORTS}")
    given = parser.parse_args(arguments)
    rounds = given.rounds or (1 if given.short else ROUNDS)
    kills = given.kills if given.kills is not None else (SHORT_KILLS if given.short else KILLS)
    begun = time.monotonic()

    def progress(line: str) -> None:
        print(f"{time.monotonic() - begun:>6.0f} s  {line}", flush=True)

    progress(f"seed {given.seed}")
    report = run(
        rounds=rounds,
        kills=kills,
        scenarios=FIRST_CALLS if given.short else ALL,
        lanes=given.lanes,
        seed=given.seed,
        progress=progress,
    )
    report.write(given.reports)
    print(f"\n{report.text}\nwritten to {given.reports}")
    return 0 if report.sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
