"""The report: a table a part, the targets with what was measured, and a picture, in ``reports/``."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Final

from tests.bench import memory
from tests.bench.results import Measured, Results, Settings, part_of, store
from tests.bench.rounds import AT_ONCE
from tests.bench.targets import Target, judged, median, ratio
from tests.bench.wrk_load import Sample

_GROWN: Final = (
    *((f"workers gateway-{n}w {load}", f"workers gateway-1w {load}")
      for load in ("decide", "usage") for n in (2, 3, 4)),
    *((f"claims gateway-many {load}", f"claims gateway-few {load}") for load in ("usage", "decide-id")),
    *((f"sessions gateway-many {load}", f"sessions gateway-few {load}")
      for load in ("session-known", "session-new")),
    ("sessions gateway-many session-any", "sessions gateway-many session-known"),
    ("tenants gateway-1000 tenants", "tenants gateway-1 tenants"),
)  # fmt: skip


def table(results: Results) -> str:
    """The cells in Markdown: medians over the rounds."""
    lines = [
        "| group | server | load | connections | requests/s | p50 ms | p99 ms | CPU µs/request | errors |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, samples in _loaded(results):
        figures = (
            f"{median(samples, lambda s: s.per_second):,.0f}",
            f"{median(samples, lambda s: s.p50_ms):.1f}",
            f"{median(samples, lambda s: s.p99_ms):.1f}",
            f"{median(samples, lambda s: s.cpu_us):.0f}",
            str(sum(s.errors for s in samples)),
        )
        lines.append(f"| {' | '.join((*name.split(), *figures))} |")
    return "\n".join(lines)


def targets(found: list[Target]) -> str:
    """The targets in Markdown, and once more by name those that are not met."""
    lines = ["| target | wanted | measured | |", "|---|--:|--:|---|"]
    for target in found:
        bound = "at most " if target.at_most else ""
        verdict = "met" if target.met else "**not met**"
        lines.append(
            f"| {target.what} | {bound}{_number(target.wanted)} | {_number(target.found)} | {verdict} |"
        )
    missed = [f"- {target.what}: {_number(target.found)}" for target in found if not target.met]
    return "\n".join(
        [*lines, "", "Not met:", "", *missed] if missed else [*lines, "", "All are met."]
    )


def verdicts(results: Results) -> str:
    """What clients were told of usage events, and what the stream holds, in Markdown; empty where nothing was told."""
    names = ("acknowledged", "stored", "twice", "lost")
    lines = ["| cell | acknowledged | stored | twice | lost | |", "|---|--:|--:|--:|--:|---|"]
    for name, cell in results.items():
        if "lost" in cell.figures:
            counts = [cell.figures[count][0] for count in names]
            verdict = "**not each once**" if sum(counts[2:]) else "each once"
            lines.append(f"| {name} | {' | '.join(f'{c:,.0f}' for c in counts)} | {verdict} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def growth(results: Results) -> str:
    """How throughput and p99 grow, start-up time and memory in Markdown; empty where none of it was measured."""
    lines: list[str] = []
    for cell, to in ((f"{cell} {AT_ONCE}", f"{to} {AT_ONCE}") for cell, to in _GROWN):
        if (found := ratio(results, cell, to)) is not None:
            slower = _p99(results[cell]) / max(_p99(results[to]), 1e-9)
            lines.append(
                f"- `{cell}` to `{to}`: {found:.2f} of the throughput, {slower:.2f} of the p99."
            )
    if memory.CELL in results:
        lines += [
            "",
            "| requests | RSS of each worker, MB | PSS of each worker, MB |",
            "|--:|---|---|",
        ]
        figures = results[memory.CELL].figures
        for stage in ("idle", "first", "last"):
            sizes = (_list(figures[f"{stage}_{kind}"]) for kind in ("rss", "pss"))
            lines.append(f"| {figures[f'{stage}_requests'][0]:,.0f} | {' | '.join(sizes)} |")
        lines += [
            "",
            "Requests: of both workers together, which are the same processes throughout.",
        ]
    starts = {n: sorted(c.figures["seconds"]) for n, c in results.items() if "seconds" in c.figures}
    if len(starts) == 2:
        gateway, hello = (times[len(times) // 2] for times in starts.values())
        lines += [
            "",
            f"Start-up to the first 200 of `/readyz`, median of {len(next(iter(starts.values())))}: {gateway:.2f} s;"
            f" Flask hello under the same gunicorn {hello:.2f} s; ratio {gateway / hello:.2f}.",
        ]
    return "\n".join(lines).strip()


def text(results: Results) -> str:
    """The report in Markdown."""
    grown, told = growth(results), verdicts(results)
    return (
        f"# Bench\n\n{_settings(results)}\n\nMedians over the rounds; the cells of a group took turns."
        " Errors: answers other than 2xx (a denied request is one, on purpose) and broken connections.\n\n"
        f"{table(results)}\n\n"
        + (f"## Usage events: answers and stream\n\n{told}\n\n" if told else "")
        + (f"## Growth\n\n{grown}\n\n" if grown else "")
        + f"## Targets\n\n{targets(judged(results))}\n"
    )


def write(results: Results, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md`` and ``bench.svg``; the text of the second."""
    folder.mkdir(exist_ok=True)
    written = text(results)
    (folder / "bench.md").write_text(written)
    (folder / "bench.svg").write_text(_picture(results))
    store(results, folder / "bench.json")
    return written


def _settings(results: Results) -> str:
    """Machine, commit and rounds; where parts were measured differently, which how."""
    by: dict[Settings, list[str]] = {}
    for part, cells in groupby(results.items(), lambda item: part_of(item[0])):
        for settings in {cell.settings for _, cell in cells}:
            by.setdefault(settings, []).append(part)
    return "\n\n".join(
        (f"{', '.join(parts)}: " if len(by) > 1 else "")
        + f"{settings.machine}; commit {settings.commit}; {settings.rounds} rounds of {settings.seconds:g} s"
        + (f"; sizes of growth times {settings.scale:g}" if settings.scale != 1 else "")
        for settings, parts in by.items()
    )


def _picture(results: Results) -> str:
    """Bars of requests a second."""
    height, width = 22, 900
    values = {name: median(samples, lambda s: s.per_second) for name, samples in _loaded(results)}
    most = max(values.values(), default=1.0)
    rows: list[str] = []
    for number, (name, value) in enumerate(values.items()):
        top = number * height + 4
        length = value / most * (width - 340)
        colour = "#2b6cb0" if " gateway" in name else "#a0aec0"
        rows += (
            f'<text x="245" y="{top + 13}" text-anchor="end">{name}</text>',
            f'<rect x="255" y="{top}" width="{length:.0f}" height="{height - 6}" fill="{colour}"/>',
            f'<text x="{260 + length:.0f}" y="{top + 13}">{value:,.0f}/s</text>',
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{len(values) * height + 8}"'
        f' font-family="sans-serif" font-size="12">{"".join(rows)}</svg>\n'
    )


def _loaded(results: Results) -> list[tuple[str, list[Sample]]]:
    """The cells that have samples: name, samples."""
    return [(name, cell.samples) for name, cell in results.items() if cell.samples]


def _p99(cell: Measured) -> float:
    return median(cell.samples, lambda s: s.p99_ms)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == 0 else f"{value:.2f}"


def _list(sizes: list[float]) -> str:
    return ", ".join(f"{size:.1f}" for size in sizes)
