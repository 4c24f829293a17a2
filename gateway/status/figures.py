"""Figures: numbers out of the metrics, for people: sums over labels, and quantiles out of histograms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Self

from prometheus_client import Metric
from prometheus_client.samples import Sample

from gateway.telemetry.metrics.declarations import CP_LATENCY, CP_REQUESTS, LATENCY_BUCKETS

STATUS_CLASSES: Final = ("2xx", "3xx", "4xx", "5xx")
NOT_COUNTED: Final = frozenset(
    {"/livez", "/readyz", "/health", "/_health", "/metrics", "/status", "/status/assets/<name>"}
)
"""Routes of those who look after the gateway: what they ask for says nothing about its work."""
_LATENCY: Final = tuple(f"le_{bound}" for bound in (*LATENCY_BUCKETS, "inf"))


class Figures:
    """The samples of one collection of the metrics."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by_name: dict[str, list[Sample]] = {}
        for sample in samples:
            self._by_name.setdefault(sample.name, []).append(sample)

    @classmethod
    def of(cls, metrics: Iterable[Metric]) -> Self:
        """Those of a registry's ``collect()``."""
        return cls(sample for metric in metrics for sample in metric.samples)

    def total(self, name: str, **labels: str) -> int:
        """The sum of a family over all series with these labels."""
        return round(sum(sample.value for sample in self.samples(name, labels)))

    def by(self, name: str, label: str) -> Mapping[str, int]:
        """The sums of a family by the values of one label."""
        sums: Counter[str] = Counter()
        for sample in self.samples(name):
            sums[sample.labels[label]] += round(sample.value)
        return sums

    def requests(self) -> dict[str, int]:
        """Requests by the class of their status."""
        classes = dict.fromkeys(STATUS_CLASSES, 0)
        for sample in self.samples("beamline_gateway_cp_requests_total"):
            if (name := f"{sample.labels['status'][:1]}xx") in classes and _counts(sample):
                classes[name] += round(sample.value)
        return classes

    def samples(
        self, name: str, labels: Mapping[str, str] = MappingProxyType({})
    ) -> Iterator[Sample]:
        """The samples of a name, with these labels among theirs."""
        for sample in self._by_name.get(name, ()):
            if labels.items() <= sample.labels.items():
                yield sample


def of_this_process() -> dict[str, float]:
    """What this worker has counted since its start: requests by class, and by how long they took at most."""
    figures = Figures.of((*CP_REQUESTS.collect(), *CP_LATENCY.collect()))
    counted: dict[str, float] = dict(figures.requests())
    counted |= dict.fromkeys(_LATENCY, 0.0)
    for sample in figures.samples("beamline_gateway_cp_latency_seconds_bucket"):
        if _counts(sample):
            counted[f"le_{sample.labels['le'].lstrip('+').lower()}"] += sample.value
    return counted


def latency_ms(counted: Mapping[str, float], quantile: float) -> float | None:
    """The quantile of what `of_this_process` counts, in milliseconds; None where nothing was counted.

    Within a bucket it is interpolated, as Prometheus does; over the last bound it is that bound.
    """
    at_most: Sequence[float] = [counted.get(name, 0.0) for name in _LATENCY]
    rank = quantile * at_most[-1]
    if rank == 0:
        return None
    lower, below = 0.0, 0.0
    for bound, count in zip(LATENCY_BUCKETS, at_most, strict=False):
        if count >= rank:
            return (lower + (bound - lower) * (rank - below) / (count - below)) * 1000
        lower, below = bound, count
    return lower * 1000


def _counts(sample: Sample) -> bool:
    return sample.labels["route"] not in NOT_COUNTED
