"""Results: what was measured, by cell, each with the settings under which it was; kept in ``reports/bench.json``.

A cell's name is ``group server load connections``. A stored part is used again only if every one of its cells was
measured under exactly these settings: a part's cells took turns with each other, so one of them alone is never measured
anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

from tests.bench.site import REPOSITORY
from tests.bench.wrk_load import Sample

_PACKAGES: Final = ("flask", "gunicorn", "nats-py", "opentelemetry-sdk", "fastapi", "uvicorn")
_MEASURED: Final = ("bridge", "gateway", "tests/bench", "tests/support", "constraints.txt")
"""What a figure depends on: a commit to anything else makes no result an old one."""


@dataclass(frozen=True)
class Settings:
    """``seconds``: of each cell in each round. ``scale``: of the sizes of growth, 1 being those of the targets."""

    seconds: float
    rounds: int
    scale: float
    machine: str
    commit: str

    @classmethod
    def here(cls, seconds: float, rounds: int, scale: float) -> Settings:
        """On this machine, of this checkout."""
        return cls(seconds, rounds, scale, machine(), commit())


@dataclass(frozen=True)
class Measured:
    """``samples``: one a round. ``figures``: what is no throughput, by name, such as the memory of each worker."""

    settings: Settings
    samples: list[Sample] = field(default_factory=list)
    figures: Mapping[str, list[float]] = field(default_factory=dict)


Results = Mapping[str, Measured]
"""By the cell's name."""


def part_of(name: str) -> str:
    """The part (a group, or a part of growth) that a cell belongs to."""
    return name.partition(" ")[0]


def stands(results: Results, part: str, settings: Settings) -> bool:
    """Whether the part was measured, every cell of it under these settings."""
    cells = [cell for name, cell in results.items() if part_of(name) == part]
    return bool(cells) and all(cell.settings == settings for cell in cells)


def replaced(results: Results, part: str, by: Results) -> dict[str, Measured]:
    """The results with a part measured anew: nothing of what it had before is left."""
    return {**{n: cell for n, cell in results.items() if part_of(n) != part}, **by}


def store(results: Results, file: Path) -> None:
    """Write them; a reader finds the old content or the new one."""
    document = {"cells": {name: asdict(cell) for name, cell in results.items()}}
    new = file.with_suffix(".new")
    new.write_text(json.dumps(document, indent=1))
    new.replace(file)


def read(file: Path) -> dict[str, Measured]:
    """What an earlier run stored; none where there is no file, or one of before cells had settings."""
    cells = json.loads(file.read_text())["cells"] if file.exists() else {}
    return {
        name: Measured(
            Settings(**cell["settings"]),
            [Sample(**sample) for sample in cell["samples"]],
            cell["figures"],
        )
        for name, cell in cells.items()
        if isinstance(cell, dict)
    }


def machine() -> str:
    """What it was measured on."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    installed = ", ".join(f"{name} {_version(name)}" for name in _PACKAGES)
    system = f"Linux {platform.release()}, Python {platform.python_version()}"
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, {system}; {installed}"


def commit() -> str:
    """The last commit to what is measured, with a mark for changes since; ``unknown`` outside of git."""
    last = _git("log", "-1", "--format=%h", "--abbrev=12", "--", *_MEASURED)
    changes = _git("diff", "HEAD", "--", *_MEASURED) + _git(
        "status", "--porcelain", "--untracked-files=all", "--", *_MEASURED
    )
    if not last:
        return "unknown"
    digest = hashlib.sha256(changes.encode()).hexdigest()[:8]
    return f"{last}+{digest}" if changes else last


def _git(*arguments: str) -> str:
    try:
        told = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return told.stdout.strip()


def _version(package: str) -> str:
    try:
        return version(package)
    except ImportError:
        return "-"
