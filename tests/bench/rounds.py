"""Rounds: the cells of a part take turns, in an order of each round's own, so that all meet the same machine."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from tests.bench.results import Measured, Settings
from tests.bench.wrk_load import Sample

AT_ONCE: Final = 24
"""Connections of the parts of growth: fewer than one worker takes at once (30), so that none is refused where there is
but one worker, or where one happens to have most connections. A refusal is cheap, and would count as throughput."""
_WARM_SECONDS: Final = 2.0


def _nothing() -> None:
    """Before a cell that needs nothing."""


@dataclass(frozen=True)
class Cell:
    """One server under one load. ``run`` measures it for so many seconds, after ``before``; ``figures`` are asked for
    when all rounds are over."""

    part: str
    server: str
    load: str
    connections: int
    run: Callable[[float], Sample]
    before: Callable[[], None] = _nothing
    figures: Callable[[], Mapping[str, list[float]]] = dict

    @property
    def name(self) -> str:
        """As the report and the targets have it: only cells of one part met the same machine."""
        return f"{self.part} {self.server} {self.load} {self.connections}"


def in_turns(cells: Sequence[Cell], settings: Settings) -> dict[str, Measured]:
    """Warm each, then measure them round by round."""
    samples: dict[str, list[Sample]] = {cell.name: [] for cell in cells}
    for cell in cells:
        cell.run(min(_WARM_SECONDS, settings.seconds))  # connections, caches, late imports
    for number in range(settings.rounds):
        for cell in random.sample(cells, len(cells)):
            cell.before()
            sample = cell.run(settings.seconds)
            samples[cell.name].append(sample)
            tell(f"{number + 1}/{settings.rounds}", cell.name, sample)
    return {cell.name: Measured(settings, samples[cell.name], cell.figures()) for cell in cells}


def tell(which: str, name: str, sample: Sample) -> None:
    """A line of progress."""
    click.echo(
        f"{which}  {name:38} {sample.per_second:8,.0f}/s  p50 {sample.p50_ms:6.1f}"
        f"  p99 {sample.p99_ms:6.1f} ms  {sample.cpu_us:5.0f} µs"
        + (f"  {sample.errors} errors" if sample.errors else ""),
        err=True,
    )
