"""The report: a table a group, the targets with what was measured, and a picture, in ``reports/``."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.bench.wrk_load import Sample

Results = Mapping[str, list[Sample]]
"""Samples by the cell's name, one a round."""

_PACKAGES: Final = ("flask", "gunicorn", "nats-py", "opentelemetry-sdk", "fastapi", "uvicorn")

TARGETS: Final[tuple[tuple[str, str, str, float], ...]] = (
    ("traced decide to FastAPI, 8 connections", "decide gateway decide 8", "decide fastapi decide 8", 1.0),
    ("traced decide to FastAPI, 32", "decide gateway decide 32", "decide fastapi decide 32", 1.0),
    ("traced decide to Flask hello, 8", "decide gateway decide 8", "decide hello decide 8", 0.35),
    ("traced decide to Flask hello, 32", "decide gateway decide 32", "decide hello decide 32", 0.35),
    ("untraced decide to FastAPI, 8", "decide gateway-untraced decide 8", "decide fastapi-untraced decide 8", 0.75),
    ("untraced decide to FastAPI, 32", "decide gateway-untraced decide 32", "decide fastapi-untraced decide 32", 0.75),
    ("traced usage to FastAPI, 8", "usage gateway usage 8", "usage fastapi usage 8", 1.25),
    ("traced usage to FastAPI, 32", "usage gateway usage 32", "usage fastapi usage 32", 1.25),
    ("local replay, 1 % sampled, to Flask hello", "local gateway-1% replay 32", "local hello decide 32", 0.6),
    ("denied, 1 % sampled, to Flask hello", "local gateway-1% denied 32", "local hello decide 32", 0.6),
    ("everything on to everything off", "parts gateway decide 32", "parts gateway-bare decide-plain 32", 0.4),
    ("batches of 100 to single events", "publish gateway batch 8", "publish gateway usage 32", 0.1),
)  # fmt: skip
"""What, the cell, the cell that it is compared with, and the ratio of their requests a second that is wanted."""


def ratio(results: Results, cell: str, to: str) -> float | None:
    """Of the medians of the rounds' ratios: both of a round met the same machine. None where one was not measured."""
    pairs = list(zip(results.get(cell, ()), results.get(to, ()), strict=False))
    return statistics.median(a.per_second / b.per_second for a, b in pairs) if pairs else None


def table(results: Results) -> str:
    """The cells in Markdown: medians over the rounds."""
    lines = [
        "| group | server | load | connections | requests/s | p50 ms | p99 ms | CPU µs/request | errors |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, samples in results.items():
        group, server, load, connections = name.split()
        figures = (
            f"{_median(s.per_second for s in samples):,.0f}",
            f"{_median(s.p50_ms for s in samples):.1f}",
            f"{_median(s.p99_ms for s in samples):.1f}",
            f"{_median(s.cpu_us for s in samples):.0f}",
            str(sum(s.errors for s in samples)),
        )
        lines.append(f"| {group} | {server} | {load} | {connections} | {' | '.join(figures)} |")
    return "\n".join(lines)


def targets(results: Results) -> str:
    """The targets in Markdown, met or not."""
    lines = ["| target | wanted | measured | |", "|---|--:|--:|---|"]
    for what, cell, to, wanted in TARGETS:
        if (found := ratio(results, cell, to)) is not None:
            verdict = "met" if found >= wanted else "**not met**"
            lines.append(f"| {what} | {wanted:.2f} | {found:.2f} | {verdict} |")
    for connections in (8, 32):
        ours, theirs = (
            results.get(f"decide {name} decide {connections}") for name in ("gateway", "fastapi")
        )
        if ours and theirs:
            p99, p50 = _median(s.p99_ms for s in ours), _median(s.p50_ms for s in ours)
            peer = _median(s.p99_ms for s in theirs)
            verdict = "met" if p99 <= peer else "**not met**"
            lines.append(
                f"| p99 of decide to FastAPI's, {connections}, at most | 1.00 | {p99 / peer:.2f} | {verdict} |"
            )
            verdict = "met" if p99 <= 4 * p50 else "**not met**"
            lines.append(
                f"| p99 to p50 of decide, {connections}, at most | 4.00 | {p99 / p50:.2f} | {verdict} |"
            )
    return "\n".join(lines)


def machine() -> str:
    """What it was measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    installed = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {system}; {installed}"


def write(results: Results, folder: Path, seconds: float) -> str:
    """Write ``bench.json``, ``bench.md`` and ``bench.svg``; the text of the second."""
    folder.mkdir(exist_ok=True)
    rounds = max((len(samples) for samples in results.values()), default=0)
    text = (
        f"# Bench\n\n{machine()}\n\nMedians of {rounds} rounds of {seconds:g} s; the cells of a group took turns."
        " Errors: answers other than 2xx (a denied request is one, on purpose) and broken connections.\n\n"
        f"{table(results)}\n\n## Targets\n\n{targets(results)}\n"
    )
    (folder / "bench.md").write_text(text)
    (folder / "bench.svg").write_text(_picture(results))
    document = {
        "machine": machine(),
        "seconds": seconds,
        "cells": {
            name: [asdict(sample) for sample in samples] for name, samples in results.items()
        },
    }
    (folder / "bench.json").write_text(json.dumps(document, indent=1))
    return text


def read(file: Path) -> dict[str, list[Sample]]:
    """The samples of an earlier run; none where there is no file."""
    if not file.exists():
        return {}
    cells = json.loads(file.read_text())["cells"]
    return {name: [Sample(**sample) for sample in samples] for name, samples in cells.items()}


def _picture(results: Results) -> str:
    """Bars of requests a second."""
    height, width = 22, 900
    most = max(
        (_median(s.per_second for s in samples) for samples in results.values()), default=1.0
    )
    rows: list[str] = []
    for number, (name, samples) in enumerate(results.items()):
        value, top = _median(s.per_second for s in samples), number * height + 4
        length = value / most * (width - 340)
        colour = "#2b6cb0" if " gateway" in name else "#a0aec0"
        rows += (
            f'<text x="245" y="{top + 13}" text-anchor="end">{name}</text>',
            f'<rect x="255" y="{top}" width="{length:.0f}" height="{height - 6}" fill="{colour}"/>',
            f'<text x="{260 + length:.0f}" y="{top + 13}">{value:,.0f}/s</text>',
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{len(results) * height + 8}"'
        f' font-family="sans-serif" font-size="12">{"".join(rows)}</svg>\n'
    )


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "-"
