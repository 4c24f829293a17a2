"""What a collector in trouble costs a request: ``python -m tests.bench.collectors`` (two minutes, a quiet machine).

One NATS server and the reference Router; one gateway with two workers for each kind of collector: one that takes every
span, none at all, one that is not there, one that refuses, one that never answers. Each round asks all gateways, in an
order of its own, for the same number of decides over one kept connection, every request traced; so whatever else the
machine does meets all of them alike. Printed are the median latency of each and, which is what counts, its ratio to
the gateway with the healthy collector. Exit code 1 if one that is in trouble is over ``--most`` (1.10).
"""

from __future__ import annotations

import contextlib
import random
import statistics
import sys
from collections.abc import Iterator

import click

from gateway.devstack.nats_server import NatsServer
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Client
from tests.support.reference_router import ReferenceRouter
from tests.support.troubled_collectors import away, hanging, refusing

PATH = "/api/v1/routes/decide"
DECIDE = {"task": {"type": "chat", "payload": {"text": "hello there"}}}
BASELINE = "healthy"
TROUBLED = ("absent", "refusing", "hanging")


@contextlib.contextmanager
def gateways() -> Iterator[dict[str, GatewayProcess]]:
    """One for each kind of collector, started and ready."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name="collectors"))
        stack.enter_context(ReferenceRouter(nats))
        endpoints = {
            BASELINE: stack.enter_context(OtlpReceiver("http")).endpoint,
            "none": None,
            "absent": stack.enter_context(away()),
            "refusing": stack.enter_context(refusing()),
            "hanging": stack.enter_context(hanging()),
        }
        yield {
            kind: stack.enter_context(
                GatewayProcess(nats.url, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint})
            )
            for kind, endpoint in endpoints.items()
        }


def asked(client: Client, requests: int) -> list[float]:
    """The latencies of that many decides, in seconds. Fails if one is not answered 200."""
    answers = [client.post(PATH, DECIDE) for _ in range(requests)]
    failed = [answer for answer in answers if answer.status != 200]
    assert not failed, failed[0]
    return [answer.elapsed for answer in answers]


@click.command()
@click.option("--rounds", default=30, show_default=True)
@click.option("--requests", default=150, show_default=True, help="In each round, of each gateway.")
@click.option("--most", default=1.10, show_default=True, help="Largest ratio that passes.")
def main(rounds: int, requests: int, most: float) -> None:
    """Measure, print a table, judge."""
    with gateways() as started, contextlib.ExitStack() as stack:
        clients = {kind: stack.enter_context(gateway.client()) for kind, gateway in started.items()}
        latencies: dict[str, list[float]] = {kind: [] for kind in clients}
        for client in clients.values():
            asked(client, requests)  # warm
        for _ in range(rounds):
            for kind in random.sample(list(clients), len(clients)):
                latencies[kind] += asked(clients[kind], requests)
    medians = {kind: statistics.median(values) for kind, values in latencies.items()}
    click.echo(f"{rounds} rounds of {requests} requests\ncollector    median     p99        ratio")
    for kind, median in medians.items():
        p99 = statistics.quantiles(latencies[kind], n=100)[-1]
        ratio = median / medians[BASELINE]
        click.echo(f"{kind:<11}  {median * 1000:6.3f} ms  {p99 * 1000:6.3f} ms  {ratio:5.3f}")
    sys.exit(any(medians[kind] > most * medians[BASELINE] for kind in TROUBLED))


if __name__ == "__main__":
    main()
