"""How a metric is declared: with what its labels may hold, what it means, and when an operator should worry.

A declaration makes the prometheus_client metric and keeps what a person needs beside it, so that the exposition's
HELP, ``docs/METRICS.md`` and the tests of both come from one place. A label whose values are a closed set names them;
one that depends on the configuration says on what. There is no third kind: nothing that a caller makes up is a label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal, Self

from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

from gateway.telemetry.metrics.files import count_in_memory, of_this_worker

if of_this_worker() is None:
    count_in_memory()

Metric = Counter | Gauge | Histogram

Merging = Literal["livesum", "livemax", "livemostrecent"]
"""How the values of an instance's living workers become one. A worker that is gone has none: its file is dropped."""


@dataclass(frozen=True, slots=True)
class Label:
    """A label, and what it may hold: one of ``values``, or, where there are none, what ``meaning`` says."""

    name: str
    meaning: str
    values: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, *values: str) -> Label:
        """A label with a closed set of values that explain themselves."""
        return cls(name, "", values)


@dataclass(frozen=True, slots=True)
class Family:
    """A declared metric: ``name`` as it is exposed; ``meaning`` is its HELP; ``worry`` is for the operator."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[Label, ...]
    meaning: str
    worry: str
    metric: Metric

    def combinations(self) -> Iterator[tuple[str, ...]]:
        """Every combination of label values, where all of them are known; one empty one without labels."""
        if all(label.values for label in self.labels):
            yield from product(*(label.values for label in self.labels))


class _Remembering(MetricWrapperBase):
    """Finds a child that it has found before without looking at its labels again: a dozen times a request."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._found: dict[tuple[object, ...], Self] = {}

    def labels(self, *values: object, **named: object) -> Self:
        """See ``prometheus_client``; values are texts."""
        child = self._found.get(values) if not named else None
        if child is None:
            child = super().labels(*values, **named)
            if not named:
                self._found[values] = child
        return child


class _Counter(_Remembering, Counter):
    pass


class _Gauge(_Remembering, Gauge):
    pass


class _Histogram(_Remembering, Histogram):
    pass


class Section:
    """A chapter of the metrics: families are declared through it and listed in their order."""

    def __init__(self, title: str) -> None:
        self.title: Final = title
        self.families: Final[list[Family]] = []

    def counter(self, name: str, meaning: str, worry: str, *labels: Label) -> Counter:
        """Declare a counter; its name ends in ``_total``."""
        metric = _Counter(name, meaning, _names(labels))
        self.families.append(Family(name, "counter", labels, meaning, worry, metric))
        return metric

    def gauge(self, name: str, meaning: str, worry: str, *labels: Label, merging: Merging) -> Gauge:
        """Declare a gauge of what is now."""
        metric = _Gauge(name, meaning, _names(labels), multiprocess_mode=merging)
        self.families.append(Family(name, "gauge", labels, meaning, worry, metric))
        return metric

    def histogram(
        self, name: str, meaning: str, worry: str, *labels: Label, buckets: Sequence[float]
    ) -> Histogram:
        """Declare a histogram; its name ends in its unit."""
        metric = _Histogram(name, meaning, _names(labels), buckets=buckets)
        self.families.append(Family(name, "histogram", labels, meaning, worry, metric))
        return metric


def _names(labels: Sequence[Label]) -> list[str]:
    return [label.name for label in labels]
