"""The report of a run: a table for people, JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.checker import Row

_COLUMNS: Final = (
    "rounds", "accepted", "stored", "duplicates", "lost", "unknown", "attempts", "cut",
)  # fmt: skip
_LEGEND: Final = (
    "rounds      requests that met the fault; each was repeated until settled, and once more elsewhere",
    "stored      on its stream, at the place that every receipt says; decide: kept as it was answered",
    "duplicates  messages beyond the first of an id; decide: calls of the Router that share a lease",
    "lost        accepted, and not stored as told",
    "unknown     never settled, however often repeated",
    "cut         attempts that ended without an HTTP answer",
)
_PROBLEMS_SHOWN: Final = 20


@dataclass
class Report:
    """What a run found. ``ways`` are the events of each undisturbed request, ``struck`` how often each position was."""

    seed: int = 0
    rows: list[Row] = field(default_factory=list)
    ways: dict[str, tuple[str, ...]] = field(default_factory=dict)
    struck: dict[str, int] = field(default_factory=dict)
    missed: list[str] = field(default_factory=list)
    """Positions that were not struck as often as they should have been."""
    seconds: float = 0.0

    @property
    def sound(self) -> bool:
        """No loss, no duplicate, nothing unsettled or unequal, every position struck as often as wanted."""
        return not self.missed and all(row.sound for row in self.rows)

    @property
    def text(self) -> str:
        """All of it for people."""
        total = _sum("all", self.rows)
        width = max(len(row.fault) for row in [*self.rows, total])
        lines = ["fault".ljust(width) + "".join(name.rjust(11) for name in _COLUMNS) + "  longest"]
        for row in [*self.rows, total]:
            counts = "".join(str(getattr(row, name)).rjust(11) for name in _COLUMNS)
            lines.append(f"{row.fault.ljust(width)}{counts}{row.longest:>7.2f} s")
        lines += [
            "",
            *_LEGEND,
            "",
            f"{sum(self.struck.values())} kills in {self.seconds:.0f} s, seed {self.seed}",
        ]
        longest = max((len(event) for way in self.ways.values() for event in way), default=0)
        for name, way in self.ways.items():
            lines += ["", f"{name}: killed right before + right after each of these events"]
            lines += [
                f"  {number:>2}  {event:<{longest}}  {self._kills(name, number)}"
                for number, event in enumerate(way, 1)
            ]
        problems = [f"{row.fault}: {one}" for row in self.rows for one in row.problems]
        problems += [f"missed: {one}" for one in self.missed]
        if problems:
            lines += ["", f"{len(problems)} problems:", *problems[:_PROBLEMS_SHOWN]]
        lines += ["", "sound" if self.sound else "NOT SOUND", ""]
        return "\n".join(lines)

    def write(self, folder: Path) -> None:
        """``crash_matrix.txt`` and ``crash_matrix.json`` in the folder, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "crash_matrix.txt").write_text(self.text, encoding="utf-8")
        document = {"sound": self.sound, **asdict(self)}
        (folder / "crash_matrix.json").write_text(
            json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )

    def _kills(self, name: str, number: int) -> str:
        counts = [
            f"{victim} {self.struck.get(f'{name}: {victim}, before {number}', 0)}"
            f"+{self.struck.get(f'{name}: {victim}, after {number}', 0)}"
            for victim in ("worker", "NATS")
        ]
        return "  ".join(counts)


def merge(parts: Iterable[Sequence[Row]], order: Sequence[str]) -> list[Row]:
    """Rows of several lanes, one for each fault, in the order given."""
    by_fault: dict[str, list[Row]] = {}
    for rows in parts:
        for row in rows:
            by_fault.setdefault(row.fault, []).append(row)
    return [_sum(fault, by_fault[fault]) for fault in sorted(by_fault, key=order.index)]


def _sum(fault: str, rows: Sequence[Row]) -> Row:
    total = Row(fault)
    for row in rows:
        for name in _COLUMNS:
            setattr(total, name, getattr(total, name) + getattr(row, name))
        total.longest = max(total.longest, row.longest)
        total.problems += row.problems
    return total
