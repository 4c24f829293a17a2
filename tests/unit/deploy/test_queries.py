"""Dashboards and rules ask for nothing that the gateway does not expose, and leave out nothing that it does."""

from __future__ import annotations

import pytest

from gateway.telemetry.metrics.declarations import families
from tests.support.deploy_queries import (
    Misfit,
    Query,
    dashboard_queries,
    exposed,
    labels_of,
    recorded,
    rule_queries,
    series_of,
)

QUERIES = [*rule_queries(), *dashboard_queries()]
RECORDED = recorded()


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_a_query_asks_for_metrics_labels_and_values_that_exist(query: Query) -> None:
    labels_of(query.expression, RECORDED)


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("rate(beamline_gateway_cp_request_total[5m])", "not a metric"),
        ("cp_phase:beamline_gateway_cp_request:rate5m", "nothing records it"),
        ("beamline_gateway_cp_requests", "not a metric"),
        ('beamline_gateway_cp_requests_total{phase="cp2"}', "no label phase"),
        ('beamline_gateway_cp_requests_total{cp_phase="cp9"}', "never cp9"),
        ('beamline_gateway_nats_requests_total{outcome=~"unknown|timeout"}', "never timeout"),
        ("sum by (tenant) (rate(beamline_gateway_cp_requests_total[5m]))", "tenant"),
        ("sum without (tenant) (rate(beamline_gateway_cp_requests_total[5m]))", "tenant"),
        ("sum by (route) (sum by (cp_phase) (beamline_gateway_cp_requests_total))", "route"),
        (
            "histogram_quantile(0.9, sum by (route) (beamline_gateway_cp_latency_seconds_bucket))",
            "without `le`",
        ),
    ],
)
def test_the_check_finds_a_query_that_would_stay_empty(expression: str, complaint: str) -> None:
    with pytest.raises(Misfit, match=complaint):
        labels_of(expression, RECORDED)


def test_the_check_finds_a_query_that_is_none() -> None:
    with pytest.raises(ValueError, match="unclosed"):
        labels_of("sum by (x (y)", RECORDED)


@pytest.mark.parametrize(
    ("expression", "labels"),
    [
        ('sum by (job, cp_phase) (beamline_gateway_cp_requests_total{status="200"})', "job cp_phase"),
        ("sum without (instance, pod, le) (beamline_gateway_nats_latency_seconds_bucket)",
         "job kind subject"),
        ("histogram_quantile(0.9, beamline_gateway_bridge_loop_lag_seconds_bucket)",
         "job instance pod"),
        ("1 - up", "job instance pod"),
        ("sum(up) > 1", ""),
    ],
)  # fmt: skip
def test_the_labels_of_what_a_query_yields_are_known(expression: str, labels: str) -> None:
    assert labels_of(expression, {}) == set(labels.split())


@pytest.mark.parametrize("name", [family.name for family in families()])
def test_every_metric_is_on_a_dashboard(name: str) -> None:
    """Whatever is worth measuring is worth showing: an operator looks at dashboards, not at expositions."""
    series = {member for member, family in exposed().items() if family.name == name}
    asked = set[str]().union(*(series_of(query.expression) for query in dashboard_queries()))
    assert series & asked, f"{name} is on no dashboard of deploy/grafana/dashboards"


def test_what_is_recorded_is_read_by_an_alert_or_is_the_phases_own() -> None:
    """A recording rule that nothing reads costs every Prometheus something, for nobody."""
    asked = set[str]().union(*(series_of(query.expression) for query in QUERIES))
    assert {name for name in set(RECORDED) - asked if not name.startswith("cp_phase:")} == set()
