"""The status page's numbers: sums, quantiles, shares and the chart."""

from __future__ import annotations

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.door import OPEN_BLUEPRINTS, PROBES
from gateway.status import figures, page
from gateway.status.figures import STATUS_CLASSES, Figures, latency_ms
from gateway.telemetry.metrics.declarations import LATENCY_BUCKETS
from tests.unit.gateway.given import app_without_nats


@pytest.fixture
def requests() -> tuple[CollectorRegistry, Counter]:
    registry = CollectorRegistry()
    labels = ["cp_phase", "route", "method", "status"]
    return registry, Counter(
        "beamline_gateway_cp_requests_total", "Requests.", labels, registry=registry
    )


def test_requests_are_summed_by_the_class_of_their_status(
    requests: tuple[CollectorRegistry, Counter],
) -> None:
    registry, counter = requests
    for route, status, count in (
        ("/api/v1/usage", "202", 3),
        ("/api/v1/routes/decide", "200", 4),
        ("none", "404", 2),
        ("/api/v1/usage", "503", 1),
        ("/livez", "200", 100),
        ("/status", "401", 100),
    ):
        counter.labels("cp2", route, "GET", status).inc(count)
    assert Figures.of(registry.collect()).requests() == {"2xx": 7, "3xx": 0, "4xx": 2, "5xx": 1}


def test_totals_are_sums_over_the_series_with_these_labels(
    requests: tuple[CollectorRegistry, Counter],
) -> None:
    registry, counter = requests
    counter.labels("cp2", "a", "GET", "200").inc(2)
    counter.labels("cp3", "b", "GET", "200").inc(3)
    found = Figures.of(registry.collect())
    assert found.total("beamline_gateway_cp_requests_total") == 5
    assert found.total("beamline_gateway_cp_requests_total", route="a") == 2
    assert found.total("nothing") == 0
    assert found.by("beamline_gateway_cp_requests_total", "cp_phase") == {"cp2": 2, "cp3": 3}


def test_whoever_looks_after_the_gateway_is_not_counted() -> None:
    gateway: Flask = app_without_nats()
    looked_after = {
        rule.rule
        for rule in gateway.url_map.iter_rules()
        if rule.endpoint in PROBES or rule.endpoint.startswith("status.")
    }
    assert looked_after == figures.NOT_COUNTED
    assert "operational" in OPEN_BLUEPRINTS


def counted(*seconds: float) -> dict[str, float]:
    """Latencies as a worker counts them."""
    registry = CollectorRegistry()
    histogram = Histogram("h", "H.", buckets=LATENCY_BUCKETS, registry=registry)
    for value in seconds:
        histogram.observe(value)
    (family,) = registry.collect()
    return {
        f"le_{sample.labels['le'].lstrip('+').lower()}": sample.value
        for sample in family.samples
        if sample.name == "h_bucket"
    }


@pytest.mark.parametrize(
    ("seconds", "quantile", "expected"),
    [
        ((), 0.5, None),
        ((0.004,) * 10, 0.5, 3.75),
        ((0.004,) * 10, 1.0, 5.0),
        ((0.004,) * 90 + (0.7,) * 10, 0.95, 750.0),
        ((60.0,) * 3, 0.99, 10_000.0),
        ((0.0005,), 0.5, 0.5),
    ],
)
def test_quantiles_are_interpolated_within_a_bucket(
    seconds: tuple[float, ...], quantile: float, expected: float | None
) -> None:
    assert latency_ms(counted(*seconds), quantile) == (
        None if expected is None else pytest.approx(expected)
    )


def test_the_chart_stacks_each_step_with_failures_at_its_foot() -> None:
    steps = {"2xx": [0, 6], "3xx": [0, 0], "4xx": [1, 0], "5xx": [0, 2]}
    first, failed, served = page.bars(steps, 5)
    assert (first.status_class, first.x, first.height, first.y) == ("s4xx", 0, 15, 105)
    assert (failed.status_class, failed.height, failed.y) == ("s5xx", 30, 90)
    assert (served.status_class, served.height, served.y) == ("s2xx", 90, 0)
    assert failed.x == served.x == page.CHART_WIDTH / 2
    assert first.title == "1 answered 4xx, 5 s ago"


def test_a_chart_of_nothing_is_empty() -> None:
    assert list(page.bars({name: [0, 0] for name in STATUS_CLASSES}, 5)) == []


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (10 * 1024, "10 KiB"),
        (2**30, "1.0 GiB"),
        (2**52, "4096 TiB"),
    ],
)
def test_sizes_have_the_unit_that_leaves_few_digits(count: int | None, shown: str) -> None:
    assert page.size(count) == shown


def test_numbers_shares_and_spans_are_written_for_people() -> None:
    assert page.number(1_234_567) == "1\u202f234\u202f567" and page.number(None) == "–"
    assert (page.share(0.667), page.share(None)) == ("66.7%", "–")
    assert (page.span(5), page.span(60), page.span(90), page.span(300)) == (
        "5 s", "1 min", "90 s", "5 min",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ready", "draining", "ready_workers", "state"),
    [
        (True, False, 2, ("good", "Ready")),
        (True, False, 1, ("warning", "Ready in part")),
        (False, False, 1, ("warning", "Ready in part")),
        (False, False, 0, ("bad", "Not ready")),
        (False, True, 0, ("warning", "Stopping")),
    ],
)
def test_the_state_is_that_of_all_workers(
    ready: bool, draining: bool, ready_workers: int, state: tuple[str, str]
) -> None:
    instance = {"ready_workers": ready_workers, "configured_workers": 2}
    assert page.state({"ready": ready, "draining": draining, "instance": instance}) == state
