"""Ten thousand requests that make up all they can: no series comes of any of it."""

from __future__ import annotations

import random
import string
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from tests.support import result_messages as results
from tests.support.documents import (
    ACKS,
    ASSIGNMENTS,
    DECIDE,
    USAGE,
    ack_body,
    assignment_body,
    decide_body,
    new_id,
    usage_body,
)
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client, as_tenant
from tests.support.nats_session import NatsSession
from tests.support.scraping import Scrape, scrape_of
from tests.support.stacks import running
from tests.support.waiting import wait_until

REQUESTS: Final = 10_000
CLIENTS: Final = 8
NAMED: Final = ("acme", "umbrella")
PATTERN: Final = "caf.exec.result.*"
ENVIRONMENT: Final = {
    "METRICS_TENANT_LABEL_ALLOWLIST": ",".join(NAMED),
    "CAF_RESULT_SUBJECT": PATTERN,
    "NATS_SUBJECT_ALLOWLIST": results.RESULT_SUBJECT,
    "NATS_MAX_DELIVER": "2",
    "NATS_BACKOFF_MS": "0",
    "GATEWAY_THREADS": "16",
    "LOG_LEVEL": "error",
}
DURABLE_GAUGE: Final = "beamline_gateway_nats_consumer_pending_messages"
MARK: Final = "zq"
"""Is in everything that is made up, and in nothing else."""
Shape = Callable[[Client, dict[str, str]], object]


def made_up() -> str:
    return f"{MARK}-{uuid.uuid4().hex}"


def phase() -> str:
    return random.choice(
        (
            f"{MARK}{random.random()}",
            f"cp9{MARK}",
            f'cp2"}} 1 {MARK}',
            f"cp2,{MARK}",
            MARK * 500,
            f"{MARK}\xe4\xff",
        )
    )


def method() -> str:
    return MARK.upper() + "".join(random.choices(string.ascii_uppercase, k=8))


SHAPES: Final[tuple[Shape, ...]] = (
    lambda client, who: client.post(
        DECIDE,
        decide_body(
            tenant_id=who["X-Tenant-ID"], request_id=made_up(), context={"session_id": made_up()}
        ),
        {**who, "X-CP-Phase": phase()},
    ),
    lambda client, who: client.post(
        DECIDE, decide_body(tenant_id=who["X-Tenant-ID"], assignment_id=made_up()), who
    ),
    lambda client, who: client.post(
        ASSIGNMENTS,
        assignment_body(tenant_id=who["X-Tenant-ID"], assignment_id=made_up()),
        {**who, "X-Trace-ID": uuid.uuid4().hex, "X-Request-ID": made_up()},
    ),
    lambda client, who: client.post(
        ACKS, ack_body(tenant_id=who["X-Tenant-ID"], ack_id=made_up()), who
    ),
    lambda client, who: client.post(
        USAGE, usage_body(tenant_id=who["X-Tenant-ID"], usage_id=made_up()), who
    ),
    lambda client, who: client.post(
        f"{USAGE}/batch",
        {"events": [usage_body(tenant_id=who["X-Tenant-ID"]) for _ in range(3)]},
        who,
    ),
    lambda client, who: client.get(f"{results.RESULTS}/{made_up()}", who),
    lambda client, who: client.get(f"/api/v1/operations/usage/{made_up()}", who),
    lambda client, who: client.get(f"/{made_up()}/%2e%2e/{made_up()}?{made_up()}", who),
    lambda client, who: client.request(method(), f"{USAGE}", headers=who),
    lambda client, who: client.post(DECIDE, {made_up(): made_up()}, who),
    lambda client, who: client.get("/livez", {"X-CP-Phase": phase(), "Host": made_up()}),
    lambda client, who: client.post(USAGE, usage_body(), {**who, "X-Tenant-ID": "not one"}),
    lambda client, who: client.post(USAGE, usage_body(), {**who, "X-Role": made_up()}),
)


def ask(gateway: GatewayProcess, requests: int) -> None:
    """Each client sends its share, every shape in turn, each as a tenant of its own."""

    def send(share: int) -> None:
        with gateway.client(headers={}) as client:
            for number in range(share):
                SHAPES[number % len(SHAPES)](client, as_tenant(made_up()))

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, [requests // CLIENTS] * CLIENTS))


def publish(nats_url: str, messages: int) -> None:
    """Results of made-up tenants, on subjects that their sender made up; half of them on the right one."""
    with NatsSession(nats_url) as session:
        for number in range(messages):
            subject = results.RESULT_SUBJECT if number % 2 else f"caf.exec.result.{made_up()}"
            headers = results.result_headers(tenant=made_up(), cp_phase=phase()[:20])
            results.publish(session, results.result_body(), headers, subject=subject)


def consumed(found: Scrape) -> float:
    return found.total("beamline_gateway_nats_consumption_total")


def test_ten_thousand_tenants_sessions_and_ids_make_no_series() -> None:
    with running("cardinality", ENVIRONMENT, reference_router=True) as started:
        gateway = started.gateway
        with gateway.client() as named:
            for tenant in NAMED:
                body = usage_body(tenant_id=tenant, usage_id=new_id("u"))
                assert named.post(USAGE, body, as_tenant(tenant)).status == 202
        # Every shape once on each worker's account: what they make of series, they make now.
        ask(gateway, CLIENTS * len(SHAPES))
        publish(started.nats.url, 4)
        # A message on another subject is refused twice, and then a dead letter.
        wait_until(lambda: consumed(scrape_of(gateway)) == 6)
        wait_until(lambda: DURABLE_GAUGE in scrape_of(gateway).samples)
        first = scrape_of(gateway)

        ask(gateway, REQUESTS)
        publish(started.nats.url, 200)
        wait_until(lambda: consumed(scrape_of(gateway)) == 306)
        last = scrape_of(gateway)

        requests = "beamline_gateway_cp_requests_total"
        sent = last.total(requests) - first.total(requests)
        assert sent >= REQUESTS
        news = {
            (name, labels)
            for name, samples in last.samples.items()
            for labels in samples.keys() - first.samples.get(name, {}).keys()
        }
        assert not news, sorted(news)[:20]
        everything = [
            value for samples in last.samples.values() for labels in samples for _, value in labels
        ]
        assert not [value for value in everything if MARK in value.lower()]
        for name, samples in last.samples.items():
            for labels in samples:
                named_labels = dict(labels)
                assert named_labels.get("tenant", "other") in {*NAMED, "other"}, name
        assert last.total("beamline_gateway_dead_letters_total", subject=PATTERN) == 102
        assert last.total("beamline_gateway_nats_publishes_total", subject=f"{PATTERN}.dlq") == 102
