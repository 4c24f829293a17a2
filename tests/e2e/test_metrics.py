"""What a scraper sees: requests counted once over all workers, and no label that a caller made up."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest

from tests.support.documents import DECIDE, decide_body
from tests.support.http_client import Client, as_tenant
from tests.support.scraping import OPENMETRICS, read, scrape
from tests.support.stacks import Running
from tests.support.waiting import wait_until

REQUESTS_TOTAL = "beamline_gateway_cp_requests_total"
LATENCY = "beamline_gateway_cp_latency_seconds"
DOCUMENT = Path(__file__).parents[2] / "docs" / "METRICS.md"


def documented() -> dict[str, tuple[str, set[str]]]:
    """Family → its type and labels, as METRICS.md tells operators."""
    row = r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|"
    found = re.findall(row, DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in found}


def test_every_request_is_counted_once_over_all_workers(stack: Running, anonymous: Client) -> None:
    labels = {"route": DECIDE, "method": "POST", "cp_phase": "cp5"}
    before = scrape(anonymous)
    for _ in range(20):
        # A connection each, so that both workers get some.
        with stack.gateway.client() as client:
            assert client.post(DECIDE, decide_body(), {"X-CP-Phase": "cp5"}).status == 200
    after = scrape(anonymous)
    for name, more in (
        (REQUESTS_TOTAL, {**labels, "status": "200"}),
        (f"{LATENCY}_count", labels),
        ("beamline_gateway_nats_requests_total", {"subject": "beamline.router.v1.decide"}),
        ("beamline_gateway_nats_latency_seconds_count", {"kind": "request"}),
    ):
        assert after.total(name, **more) - before.total(name, **more) == 20, name


@pytest.mark.parametrize("accept", ["text/plain", OPENMETRICS])
def test_what_is_exposed_is_what_is_documented(
    client: Client, anonymous: Client, accept: str
) -> None:
    """Every family, once its path was gone; most are there from the start."""
    assert client.post(DECIDE, decide_body()).status == 200
    families = documented()
    # Needs a worker's result; what it tells is in `test_metrics_nats`.
    families.pop("beamline_gateway_nats_consumption_latency_seconds")
    # A worker tells of NATS once a second.
    wait_until(lambda: scrape(anonymous).kinds.keys() >= families.keys())
    found = scrape(anonymous, accept)
    assert {name: found.kinds[name] for name in families} == {
        name: kind for name, (kind, _) in families.items()
    }
    assert found.kinds.keys() <= documented().keys()
    for name, (kind, labels) in families.items():
        samples = found.samples[f"{name}_count" if kind == "histogram" else name]
        assert samples, name
        assert all(set(dict(sample)) == labels for sample in samples), name


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
    phases = scrape(anonymous).values(REQUESTS_TOTAL, "cp_phase")
    assert phases <= {*(f"cp{n}" for n in range(9)), "unknown"}


# -- how it is asked for ------------------------------------------------------------------------------


def test_a_compressed_scrape_is_the_same(anonymous: Client) -> None:
    plain = anonymous.get("/metrics")
    packed = anonymous.get("/metrics", {"Accept-Encoding": "gzip"})
    assert packed.header("Content-Encoding") == "gzip"
    assert len(packed.body) < len(plain.body) / 3
    names = {line.split("{")[0].split()[0] for line in plain.body.decode().splitlines()}
    unpacked = gzip.decompress(packed.body).decode().splitlines()
    assert {line.split("{")[0].split()[0] for line in unpacked} == names


def test_head_has_the_headers_and_no_body(anonymous: Client) -> None:
    answer = anonymous.request("HEAD", "/metrics", headers={"Accept": OPENMETRICS})
    assert (answer.status, answer.body) == (200, b"")
    assert (answer.header("Content-Type") or "").startswith(OPENMETRICS)


@pytest.mark.parametrize(
    "accept",
    [
        f"{OPENMETRICS};version=abc",
        f"{OPENMETRICS};version=99.99.99;escaping=%0d%0a",
        "text/plain;q=nan, */*;q=-1",
        ";;;,,,===" * 500,
        "\xe4\xf6",
    ],
)
def test_no_accept_header_breaks_it(anonymous: Client, accept: str) -> None:
    answer = anonymous.get("/metrics", {"Accept": accept})
    assert answer.status == 200, answer
    assert read(answer).samples
    assert "99" not in (answer.header("Content-Type") or "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_told_which_it_takes(anonymous: Client, method: str) -> None:
    answer = anonymous.request(method, "/metrics")
    assert answer.status == 405
    assert {"GET", "HEAD"} <= set(re.findall(r"\w+", answer.header("Allow") or ""))
