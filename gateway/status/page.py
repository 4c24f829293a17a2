"""The page's words and shapes: numbers as people read them, and the chart of the last minutes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.status.figures import STATUS_CLASSES

CHART_WIDTH: Final = 600
CHART_HEIGHT: Final = 120
_GAP: Final = 2
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_KIBI: Final = 1024
_NOTHING: Final = "–"


@dataclass(frozen=True, slots=True)
class Bar:
    """A piece of the chart: requests of one class in one step. Coordinates from the upper left corner."""

    x: float
    y: float
    width: float
    height: float
    status_class: str
    title: str


def shown(overview: Mapping[str, Any], tenant: str) -> dict[str, Any]:
    """What the template is rendered with."""
    requests = overview["requests"]
    return {
        "seen": overview,
        "tenant": tenant,
        "state": state(overview),
        "nats": _connected(overview["instance"]),
        "classes": STATUS_CLASSES,
        "bars": list(bars(requests["steps"], requests["step_seconds"])),
        "most": max(_sums(requests["steps"])),
        "minutes": len(_sums(requests["steps"])) * requests["step_seconds"] // 60,
        "chart": (CHART_WIDTH, CHART_HEIGHT),
        "number": number,
        "size": size,
        "share": share,
        "span": span,
    }


def bars(steps: Mapping[str, Sequence[int]], step_seconds: int) -> Iterator[Bar]:
    """A stack of bars for each step, the failures at its foot; the highest stack is as high as the chart."""
    sums = _sums(steps)
    most = max(sums, default=0)
    if not most:
        return
    width = CHART_WIDTH / len(sums)
    for index in range(len(sums)):
        top = float(CHART_HEIGHT)
        ago = span((len(sums) - 1 - index) * step_seconds)
        for status_class in reversed(STATUS_CLASSES):
            if count := steps[status_class][index]:
                height = count / most * CHART_HEIGHT
                top -= height
                yield Bar(
                    round(index * width, 1),
                    round(top, 1),
                    round(width - _GAP, 1),
                    round(height, 1),
                    f"s{status_class}",
                    f"{number(count)} answered {status_class}, {ago} ago",
                )


def _sums(steps: Mapping[str, Sequence[int]]) -> list[int]:
    """The requests of each step, of all classes."""
    return [sum(counts) for counts in zip(*steps.values(), strict=True)]


def number(value: float | None) -> str:
    """With a narrow space between thousands."""
    if value is None:
        return _NOTHING
    return f"{value:,}".replace(",", "\u202f")


def size(count: int | None) -> str:
    """Bytes in the unit that leaves few digits."""
    if count is None:
        return _NOTHING
    step = max((n for n in range(len(_UNITS)) if count >= _KIBI**n), default=0)
    value = count / _KIBI**step
    digits = 0 if step == 0 or value >= 10 else 1
    return f"{value:.{digits}f} {_UNITS[step]}"


def share(part: float | None) -> str:
    """A share of one in percent."""
    return _NOTHING if part is None else f"{part:.1%}"


def span(seconds: int) -> str:
    """A time span in seconds or minutes."""
    return f"{seconds} s" if seconds < 60 or seconds % 60 else f"{seconds // 60} min"


def state(overview: Mapping[str, Any]) -> tuple[str, str]:
    """The class and the words of what the instance is now, whichever of its workers is asked."""
    instance = overview["instance"]
    if overview["draining"]:
        return "warning", "Stopping"
    if not instance["ready_workers"]:
        return "bad", "Not ready"
    if not overview["ready"] or instance["ready_workers"] < instance["configured_workers"]:
        return "warning", "Ready in part"
    return "good", "Ready"


def _connected(instance: Mapping[str, int]) -> str:
    connected = instance["connected_workers"]
    if not connected:
        return "not connected"
    return "connected" if connected >= instance["workers"] else "connected in part"
