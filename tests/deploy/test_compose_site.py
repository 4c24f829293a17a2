"""The compose file's site: three NATS nodes with the least account, two gateways, an operator, reference services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.deploy_site import Site, running_site
from tests.support.documents import (
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    assignment_body,
    decide_body,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer
from tests.support.result_messages import RESULTS
from tests.support.waiting import wait_until

#: So that a key that was just made, or just revoked, is heard of at once.
AT_ONCE = {"RBAC_CACHE_TTL_MS": "200", "RBAC_DENY_TTL_MS": "0"}
CLUSTER_SECONDS = 60.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Shared: a node that is taken away comes back."""
    with running_site(tmp_path_factory.mktemp("site"), AT_ONCE) as started:
        yield started


@pytest.fixture(scope="module")
def key(site: Site) -> str:
    """What `docker compose run --rm operator apikeys create …` prints."""
    made = site.operator("apikeys", "create", "--tenant", "acme", "--role", "admin")
    assert made.code == 0, made.err
    return made.out.strip()


def asked(gateway: GatewayProcess, key: str, path: str, document: object = None) -> Answer:
    with gateway.client({"X-API-Key": key}) as client:
        return client.get(path) if document is None else client.post(path, document)


def test_both_gateways_are_ready_with_no_more_rights_than_they_need(site: Site, key: str) -> None:
    for gateway in site.gateways:

        def ready(gateway: GatewayProcess = gateway) -> bool:
            # Each worker looks for itself, and for a bucket that the operator made meanwhile every 30 s: all of them,
            # as many connections in turn make sure. Three nodes, three replicas, its own account: nothing to say.
            answers = [gateway.get("/readyz") for _ in range(10)]
            return all(
                answer is not None and answer.status == 200 and answer.json()["findings"] == []
                for answer in answers
            )

        wait_until(ready, CLUSTER_SECONDS, lambda g=gateway: str(g.get("/readyz")))  # type: ignore[misc]


def test_one_key_opens_every_gateway_until_it_is_revoked(site: Site) -> None:
    made = site.operator("apikeys", "create", "--tenant", "acme", "--role", "service")
    key = made.out.strip()
    for gateway in site.gateways:
        wait_until(lambda g=gateway: asked(g, key, USAGE, usage_body()).status == 202)  # type: ignore[misc]
    revoked = site.operator("apikeys", "revoke", key[:12])
    assert revoked.code == 0, revoked.err
    for gateway in site.gateways:
        wait_until(lambda g=gateway: asked(g, key, USAGE, usage_body()).status == 401)  # type: ignore[misc]


def test_the_reference_services_decide_and_work(site: Site, key: str) -> None:
    first, second = site.gateways
    with site.reference("reference-router"), site.reference("reference-worker"):
        wait_until(lambda: asked(first, key, DECIDE, decide_body()).status == 200)
        body = assignment_body()
        assert asked(first, key, ASSIGNMENTS, body).status == 202
        result = asked(second, key, f"{RESULTS}/{body['assignment_id']}?wait_ms=20000")
    assert result.status == 200
    assert result.json()["result"]["status"] == "success"


def test_an_operator_sees_streams_and_dead_letters(site: Site, key: str) -> None:
    for command in (("streams",), ("dlq", "list"), ("apikeys", "list"), ("roles", "show")):
        ended = site.operator(*command)
        assert ended.code == 0, ended.err


def test_a_node_that_is_lost_is_not_the_end(site: Site, key: str) -> None:
    with site.nodes["nats-1"].lost():
        for gateway in site.gateways:
            for _ in range(3):
                wait_until(
                    lambda g=gateway: asked(g, key, USAGE, usage_body()).status == 202,  # type: ignore[misc]
                    CLUSTER_SECONDS,
                )
