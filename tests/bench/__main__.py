"""The bench: ``python -m tests.bench`` (`make bench`), on a machine that does nothing else.

Starts everything itself on loopback. The cells of a part take turns, round by round, so that whatever else the machine
does meets all of them alike; what counts are ratios within a run. Results are kept in ``reports/`` after each part, and
``--resume`` goes on from those that this checkout made on this machine with the same options.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import click

from tests.bench import report, results
from tests.bench.cells import FULL, GROUPS, measured
from tests.bench.growth import claims, sessions, tenants
from tests.bench.memory import memory
from tests.bench.results import Measured, Settings
from tests.bench.startup import startup
from tests.bench.wrk_load import WrkMissing

REPORTS: Final = Path("reports")
PARTS: Final[dict[str, Callable[[Settings], dict[str, Measured]]]] = {
    **{group: partial(measured, group) for group in FULL},
    "claims": claims,
    "sessions": sessions,
    "tenants": tenants,
    "memory": memory,
    "startup": startup,
}
GROWTH: Final = ("workers", "claims", "sessions", "tenants", "memory", "startup")


@click.command()
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*PARTS, "growth"]),
    help=f"Parts; growth: {', '.join(GROWTH)}.",
)
@click.option("--full", is_flag=True, help="All parts, the long ones as well.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=10.0, show_default=True, help="Of each cell in each round.")
@click.option(
    "--scale", default=1.0, show_default=True, help="Of claims, sessions and requests of growth."
)
@click.option(
    "--resume", is_flag=True, help="Leave out what was measured with the same settings already."
)
def main(
    only: tuple[str, ...], full: bool, rounds: int, seconds: float, scale: float, resume: bool
) -> None:
    """Measure, print a table, write reports/bench.{md,json,svg}."""
    settings = Settings.here(seconds, rounds, scale)
    found = results.read(REPORTS / "bench.json") if resume or only else {}
    try:
        for part in chosen(only, full):
            if resume and results.stands(found, part, settings):
                click.echo(f"{part}: measured already", err=True)
                continue
            found = results.replaced(found, part, PARTS[part](settings))
            report.write(found, REPORTS)
    except WrkMissing as missing:
        sys.exit(str(missing))
    click.echo(report.write(found, REPORTS))


def chosen(only: tuple[str, ...], full: bool) -> list[str]:
    """The parts to measure, each once."""
    if not only:
        return list(PARTS if full else GROUPS)
    return list(
        dict.fromkeys(p for name in only for p in (GROWTH if name == "growth" else (name,)))
    )


if __name__ == "__main__":
    main()
