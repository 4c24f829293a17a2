"""What a scraper sees: requests counted once over all workers, and no label that a caller made up."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from tests.support.documents import DECIDE, decide_body
from tests.support.http_client import Client, as_tenant
from tests.support.stacks import Running
from tests.support.waiting import wait_until

REQUESTS_TOTAL = "beamline_gateway_cp_requests_total"
LATENCY = "beamline_gateway_cp_latency_seconds"


def scrape(client: Client) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name → labels → value. Fails if Prometheus could not read it."""
    answer = client.get("/metrics", {"Accept": "text/plain"})
    assert answer.status == 200
    assert (answer.header("Content-Type") or "").startswith("text/plain"), answer
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            values = samples.setdefault(sample.name, {})
            assert labels not in values, f"{sample.name}{dict(labels)} twice"
            values[labels] = sample.value
    return samples


def count(
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]], name: str, **labels: str
) -> float:
    """The sum of all samples of this name that have these labels."""
    return sum(
        value
        for found, value in samples.get(name, {}).items()
        if labels.items() <= dict(found).items()
    )


def test_every_request_is_counted_once_over_all_workers(stack: Running, anonymous: Client) -> None:
    labels = {"route": DECIDE, "method": "POST", "status": "200", "cp_phase": "cp5"}
    before = scrape(anonymous)
    for _ in range(20):
        # A connection each, so that both workers get some.
        with stack.gateway.client() as client:
            assert client.post(DECIDE, decide_body(), {"X-CP-Phase": "cp5"}).status == 200

    def rise(name: str, **wanted: str) -> float:
        return count(scrape(anonymous), name, **wanted) - count(before, name, **wanted)

    # A worker may count after the client has its answer.
    wait_until(lambda: rise(REQUESTS_TOTAL, **labels) >= 20, message=lambda: str(scrape(anonymous)))
    assert rise(REQUESTS_TOTAL, **labels) == 20
    del labels["status"]
    assert rise(f"{LATENCY}_count", **labels) == 20
    assert rise("beamline_gateway_nats_requests_total", subject="beamline.router.v1.decide") == 20


def test_metric_families_have_the_labels_of_the_contract(client: Client, anonymous: Client) -> None:
    client.post(DECIDE, decide_body())
    expected = {
        REQUESTS_TOTAL: {"cp_phase", "route", "method", "status"},
        f"{LATENCY}_count": {"cp_phase", "route", "method"},
        "beamline_gateway_nats_requests_total": {"subject", "outcome"},
    }
    samples = wait_until(lambda: scrape(anonymous))
    for name, labels in expected.items():
        assert samples.get(name), f"{name} is missing"
        for found in samples[name]:
            assert set(dict(found)) == labels, name


def test_nothing_that_a_caller_makes_up_becomes_a_label(client: Client, anonymous: Client) -> None:
    made_up = "canary-label-77"
    client.get(f"/api/v1/{made_up}")
    client.request(made_up.upper().replace("-", ""), DECIDE)
    client.post(DECIDE, decide_body(policy_id=made_up, request_id=made_up), as_tenant("acme"))
    client.post(
        DECIDE,
        decide_body(tenant_id=made_up),
        {**as_tenant(made_up), "X-CP-Phase": made_up, "X-Trace-ID": made_up},
    )
    answer = anonymous.get("/metrics")
    assert made_up not in answer.body.decode()
    assert made_up.upper().replace("-", "") not in answer.body.decode()
    for labels in scrape(anonymous)[REQUESTS_TOTAL]:
        assert dict(labels)["cp_phase"] in {*(f"cp{n}" for n in range(9)), "unknown"}
