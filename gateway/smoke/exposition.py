"""What a scrape holds, in both formats, as Prometheus reads it: by its own client's parsers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from gateway.smoke.client import Answer, Client
from gateway.smoke.failures import Failed, Failure

TEXT: Final = "text/plain"
OPENMETRICS: Final = "application/openmetrics-text"
Labels = frozenset[tuple[str, str]]

_ASKING: Final = {
    TEXT: "text/plain; version=0.0.4",
    OPENMETRICS: "application/openmetrics-text; version=1.0.0",
}
_PARSERS: Final[Mapping[str, Callable[[str], Iterable[Metric]]]] = {
    TEXT: text_string_to_metric_families,
    OPENMETRICS: openmetrics.text_string_to_metric_families,
}
_UNREADABLE: Final = {
    TEXT: Failure.METRICS_UNREADABLE,
    OPENMETRICS: Failure.OPENMETRICS_UNREADABLE,
}


@dataclass(frozen=True, slots=True)
class Exposition:
    """Samples by name, each by its labels, and the type that each was declared with."""

    samples: Mapping[str, Mapping[Labels, float]]
    kinds: Mapping[str, str]

    def total(self, name: str, where: Mapping[str, str]) -> float:
        """The sum of the samples of ``name`` that have these labels."""
        wanted = where.items()
        return sum(
            value
            for labels, value in self.samples.get(name, {}).items()
            if wanted <= dict(labels).items()
        )


def scrape(client: Client, wanted: str = TEXT) -> Exposition:
    """Ask ``/metrics`` for a format and read it. Raises Failed if it is not there, or another, or malformed."""
    answer = client.get("/metrics", {"Accept": _ASKING[wanted]})
    if answer.status != 200:
        raise Failed(Failure.METRICS_UNANSWERED, f"{client.base_url}/metrics: {answer}")
    given = answer.headers.get_content_type()
    if given != wanted:
        raise Failed(_UNREADABLE[wanted], f"asked for {wanted}, /metrics answers {given}")
    return _read(answer, wanted)


def _read(answer: Answer, kind: str) -> Exposition:
    samples: dict[str, dict[Labels, float]] = {}
    kinds: dict[str, str] = {}
    try:
        for family in _PARSERS[kind](answer.body.decode()):
            for sample in family.samples:
                of_name = samples.setdefault(sample.name, {})
                labels = frozenset(sample.labels.items())
                if labels in of_name:
                    raise ValueError(f"{sample.name} is there twice with the same labels")
                of_name[labels] = sample.value
                kinds[sample.name] = family.type
    # The parsers let through what their own string handling raises; whatever it is, nobody can read that.
    except Exception as error:
        raise Failed(_UNREADABLE[kind], f"/metrics is no {kind}: {error}") from None
    return Exposition(samples, kinds)
