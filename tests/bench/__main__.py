"""The bench: ``python -m tests.bench`` (`make bench`), on a machine that does nothing else.

Starts everything itself on loopback. The cells of a group take turns, round by round, so that whatever else the machine
does meets all of them alike; what counts are ratios within a run. Results are kept in ``reports/`` after each group,
and ``--resume`` goes on from them.
"""

from __future__ import annotations

import contextlib
import random
import sys
from pathlib import Path

import click

from tests.bench import report
from tests.bench.cells import FULL, GROUPS, SERVERS, cells
from tests.bench.site import running
from tests.bench.wrk_load import Sample, WrkMissing

REPORTS = Path("reports")


@click.command()
@click.option(
    "--only", multiple=True, type=click.Choice(list(FULL)), help="Groups; all by default."
)
@click.option("--full", is_flag=True, help="The long list.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
@click.option("--seconds", default=10.0, show_default=True, help="Of each cell in each round.")
@click.option("--resume", is_flag=True, help="Leave out groups that were measured already.")
def main(only: tuple[str, ...], full: bool, rounds: int, seconds: float, resume: bool) -> None:
    """Measure, print a table, write reports/bench.{md,json,svg}."""
    results = report.read(REPORTS / "bench.json") if resume or only else {}
    try:
        for group in only or (FULL if full else GROUPS):
            names = {f"{group} {server} {load} {n}" for server, load, ns in FULL[group] for n in ns}
            if resume and names <= results.keys():
                continue
            results.update(_group(group, rounds, seconds))
            report.write(results, REPORTS, seconds)
    except WrkMissing as missing:
        sys.exit(str(missing))
    click.echo(report.write(results, REPORTS, seconds))


def _group(group: str, rounds: int, seconds: float) -> dict[str, list[Sample]]:
    with running() as site, contextlib.ExitStack():
        wanted = dict.fromkeys(server for server, _, _ in FULL[group] if server in SERVERS)
        servers = {name: SERVERS[name](site) for name in wanted}
        measured = cells(site, servers, group)
        results: dict[str, list[Sample]] = {cell.name: [] for cell in measured}
        for cell in measured:
            cell.run(min(2.0, seconds))  # connections, caches and what is imported late
        for number in range(rounds):
            for cell in random.sample(measured, len(measured)):
                sample = cell.run(seconds)
                results[cell.name].append(sample)
                click.echo(
                    f"{number + 1}/{rounds}  {cell.name:38} {sample.per_second:8,.0f}/s"
                    f"  p50 {sample.p50_ms:6.1f}  p99 {sample.p99_ms:6.1f} ms  {sample.cpu_us:5.0f} µs"
                    + (f"  {sample.errors} errors" if sample.errors else ""),
                    err=True,
                )
    return results


if __name__ == "__main__":
    main()
