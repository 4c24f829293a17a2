"""What a scraper reads: samples by name and labels, in the text format or OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, cast

from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client

OPENMETRICS: Final = "application/openmetrics-text"
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Scrape:
    """One scrape. ``kinds``: family → type, as it is exposed; counters by the name of their samples."""

    kinds: dict[str, str]
    samples: dict[str, dict[Labels, float]]

    def total(self, name: str, **labels: str) -> float:
        """The sum of all samples of this name that have these labels; 0 if there are none."""
        return sum(
            value
            for found, value in self.samples.get(name, {}).items()
            if labels.items() <= dict(found).items()
        )

    def series(self) -> int:
        """How many there are."""
        return sum(map(len, self.samples.values()))

    def values(self, name: str, label: str) -> set[str]:
        """What a label holds."""
        return {dict(labels)[label] for labels in self.samples.get(name, {})}


def scrape(client: Client, accept: str = "text/plain") -> Scrape:
    """Scrape the gateway of a client that needs no credentials. Fails if Prometheus could not read the answer."""
    answer = client.get("/metrics", {"Accept": accept})
    assert answer.status == 200, answer
    return read(answer)


def scrape_of(gateway: GatewayProcess) -> Scrape:
    """The same, on a connection of its own."""
    with gateway.client(headers={}) as client:
        return scrape(client)


def read(answer: Answer) -> Scrape:
    """What an answer tells, by its content type."""
    content_type = answer.header("Content-Type") or ""
    assert content_type.startswith(("text/plain; version=0.0.4", OPENMETRICS)), content_type
    kinds: dict[str, str] = {}
    samples: dict[str, dict[Labels, float]] = {}
    for family in _families(answer.body.decode(), content_type):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in kinds, f"{name} twice"
        kinds[name] = family.type
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            values = samples.setdefault(sample.name, {})
            assert labels not in values, f"{sample.name}{dict(labels)} twice"
            values[labels] = sample.value
    return Scrape(kinds, samples)


def _families(text: str, content_type: str) -> Iterator[Metric]:
    if content_type.startswith(OPENMETRICS):
        found = cast(Iterable[Metric], openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]
        yield from found
    else:
        yield from text_string_to_metric_families(text)
