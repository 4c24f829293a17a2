"""A real Prometheus with the delivered configuration scrapes two real instances; alerts fire and clear."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.devstack.nats_server import NatsServer
from tests.support.deploy_prometheus import DELIVERED, Prometheus
from tests.support.deploy_queries import RULES, Query, dashboard_queries, recorded, rules
from tests.support.documents import USAGE, usage_body
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client
from tests.support.load import Load
from tests.support.waiting import wait_until

#: Minutes of the rules are seconds here; the slowest alert looks at five of them, and the machine may be busy.
PATIENCE_SECONDS = 60.0
#: What an idle site with the defaults may say: one NATS node is a finding of the audit.
EXPECTED = {"BeamlineGatewayFindings"}


@dataclass(frozen=True)
class Watched:
    """Two instances, their NATS, and the Prometheus that watches them."""

    nats: NatsServer
    instances: tuple[GatewayProcess, ...]
    prometheus: Prometheus

    def firing(self) -> set[str]:
        return self.prometheus.alerts() - EXPECTED


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Shared: mend what you break, and wait until no alert is left of it."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="watched"))
        environment = {"ROUTER_REQUEST_TIMEOUT_MS": "1000"}
        instances = tuple(
            stack.enter_context(GatewayProcess(nats.url, environment=environment)) for _ in range(2)
        )
        targets = [f"{instance.host}:{instance.port}" for instance in instances]
        prometheus = stack.enter_context(Prometheus(targets))
        watched = Watched(nats, instances, prometheus)
        wait_until(lambda: prometheus.value('sum(up{job="beamline-gateway"})') == 2.0, 30.0)
        wait_until(lambda: not watched.firing(), PATIENCE_SECONDS, lambda: str(watched.firing()))
        yield watched


def send(client: Client) -> Answer:
    return client.post(USAGE, usage_body())


def test_promtool_finds_nothing_wrong_with_configuration_and_rules() -> None:
    checks: tuple[list[str | Path], ...] = (
        ["promtool", "check", "config", DELIVERED / "prometheus.yml"],
        ["promtool", "check", "rules", *RULES],
        ["promtool", "test", "rules", *(DELIVERED / "tests").glob("*.yml")],
    )
    for command in checks:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_rule_is_loaded_and_evaluated_without_an_error(watched: Watched) -> None:
    def loaded() -> list[dict[str, str]]:
        groups = watched.prometheus.get("rules")["groups"]
        return [rule for group in groups for rule in group["rules"]]

    wait_until(lambda: all(rule["health"] != "unknown" for rule in loaded()), PATIENCE_SECONDS)
    names = {rule.get("alert") or rule["record"] for rule in rules()}
    assert {rule["name"] for rule in loaded()} == names
    assert [rule for rule in loaded() if rule["health"] != "ok"] == []


def test_what_is_recorded_has_the_labels_that_its_readers_count_on(watched: Watched) -> None:
    with Load(watched.instances[0].client, send, clients=1) as load:
        load.wait_for(20, "202")
        name = "cp_phase:beamline_gateway_cp_requests:rate5m"
        wait_until(lambda: watched.prometheus.value(name) is not None, PATIENCE_SECONDS)
        (series,) = watched.prometheus.get("query", query=name)["result"]
    labels = set(series["metric"]) - {"__name__"}
    assert labels == recorded()[name] - {"pod"}


@pytest.mark.parametrize("query", list(dashboard_queries()), ids=lambda query: query.where)
def test_prometheus_takes_every_query_of_the_dashboards(query: Query, watched: Watched) -> None:
    watched.prometheus.get("query", query=query.expression)


def test_an_instance_that_hangs_is_told_and_one_that_is_back_is_not(watched: Watched) -> None:
    workers = watched.instances[1].workers()
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    try:
        wait_until(
            lambda: watched.firing() == {"BeamlineGatewayInstanceDown"},
            PATIENCE_SECONDS,
            lambda: str(watched.firing()),
        )
    finally:
        for pid in workers:
            os.kill(pid, signal.SIGCONT)
    wait_until(lambda: not watched.firing(), PATIENCE_SECONDS, lambda: str(watched.firing()))


def test_unknown_outcomes_wake_somebody_when_nats_is_frozen_and_nobody_afterwards(
    watched: Watched,
) -> None:
    with Load(watched.instances[0].client, send, clients=2) as load:
        load.wait_for(10, "202")
        watched.nats.freeze()
        try:
            load.wait_for(1, "504 outcome_unknown")
            wait_until(
                lambda: "BeamlineGatewayUnknownOutcomes" in watched.firing(),
                PATIENCE_SECONDS,
                lambda: f"{watched.firing()} {watched.prometheus.alerts('pending')}",
            )
            wait_until(lambda: "BeamlineGatewayNotConnected" in watched.firing(), PATIENCE_SECONDS)
        finally:
            watched.nats.thaw()
    wait_until(lambda: not watched.firing(), PATIENCE_SECONDS, lambda: str(watched.firing()))
    with watched.instances[0].client() as client:
        assert send(client).status == 202
