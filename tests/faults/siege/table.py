"""The report of a run: one line a fault for people, JSON for machines."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.siege.verdict import Verdict

_COUNTS: Final = {
    "requests": "requests",
    "answered": "answered",
    "refused": "refused",
    "cut": "cut",
    "effects": "effects",
    "results": "results",
    "lost": "lost",
    "twice": "twice",
    "late": "late",
    "crossed": "crossed",
    "unsettled": "unsettled",
}
_LEGEND: Final = """\
- **times**: how often the fault was made. **requests**: sent under it, answered or not; most are repeats of others, at
  any worker of any instance.
- **answered** 2xx, **refused** any other answer, **cut** no answer (the process or the connection died).
- **effects**: acknowledged to clients (publishes; decides with an id). **results**: of workers, to be metered once.
- **lost**: acknowledged, and not stored at the place that each receipt says, or answered differently later; results
  that were not metered. **twice**: stored twice, called "the first" twice, asked of the Router twice in a lease.
- **late**: not answered within the deadline + 0.5 s. **crossed**: of another request or tenant.
- **unsettled**: neither accepted nor refused, however often repeated.
- **…\\***: the store was wiped on purpose; what is counted so is no part of the verdict.
- **back**: the longest time from a fault's end until every instance served new effects again, and what is allowed.
"""


@dataclass
class Table:
    """All lines."""

    seed: int
    verdicts: list[Verdict] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    """Fault → what exactly is done."""
    seconds: float = 0.0
    least_requests: int = 0

    @property
    def requests(self) -> int:
        return sum(one.requests for one in self.verdicts)

    @property
    def sound(self) -> bool:
        return all(one.sound for one in self.verdicts) and self.requests >= self.least_requests

    @property
    def markdown(self) -> str:
        """The report."""
        times = sum(one.times for one in self.verdicts)
        lines = [
            "# Faults",
            "",
            f"{len(self.verdicts)} kinds of fault, {times} times in all, under {self.requests:,} requests, in"
            f" {self.seconds / 60:.1f} minutes; seed {self.seed};"
            f" {os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}.",
            "",
            "**Verdict: " + ("sound.**" if self.sound else "NOT sound.**"),
            "",
        ]
        if self.requests < self.least_requests:
            lines += [f"Fewer requests than the {self.least_requests:,} wanted.", ""]
        names = ["times", *_COUNTS.values(), "back (s)", "verdict"]
        lines += [
            "| fault | " + " | ".join(names) + " |",
            "|---|" + "---:|" * (len(names) - 1) + "---|",
            *map(self._row, self.verdicts),
            self._sum(),
            "",
            _LEGEND,
        ]
        if broken := [one for one in self.verdicts if not one.sound]:
            lines += ["## What is not sound", ""]
            for one in broken:
                lines += [f"- **{one.fault}**", *(f"  - {failure}" for failure in one.failures)]
            lines.append("")
        lines += ["## What is done", ""]
        about = {one.fault: f" {one.about}" for one in self.verdicts if one.about}
        lines += [f"- **{name}**: {note}{about.get(name, '')}" for name, note in self.notes.items()]
        return "\n".join(lines) + "\n"

    def _row(self, one: Verdict) -> str:
        counts = [str(one.times), *(f"{getattr(one, name):,}" for name in _COUNTS)]
        if not one.loss_counts:
            for name in ("lost", "twice", "unsettled"):
                counts[1 + list(_COUNTS).index(name)] += "*"
        back = f"{one.worst_return_seconds:.1f} of {one.return_limit_seconds:.0f}"
        verdict = "sound" if one.sound else "**NOT sound**"
        return "| " + " | ".join([one.fault, *counts, back, verdict]) + " |"

    def _sum(self) -> str:
        counts = [sum(one.times for one in self.verdicts)] + [
            sum(getattr(one, name) for one in self.verdicts if one.loss_counts) for name in _COUNTS
        ]
        counts[1] = self.requests
        return "| **all** | " + " | ".join(f"{count:,}" for count in counts) + " | | |"

    def write(self, folder: Path) -> Sequence[Path]:
        """``faults.md`` and ``faults.json`` in the folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        document = {
            "sound": self.sound,
            "seed": self.seed,
            "seconds": self.seconds,
            "requests": self.requests,
            "faults": [{**asdict(one), "sound": one.sound} for one in self.verdicts],
        }
        text, data = folder / "faults.md", folder / "faults.json"
        text.write_text(self.markdown, encoding="utf-8")
        data.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return text, data
