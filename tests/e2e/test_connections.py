"""One NATS connection a worker, however many HTTP connections there are."""

from __future__ import annotations

from tests.support.documents import DECIDE, USAGE, decide_body, usage_body
from tests.support.http_client import Client
from tests.support.load import at_once
from tests.support.scripted_router import ScriptedRouter
from tests.support.stacks import running
from tests.support.waiting import wait_until

REQUESTS = 1000
CONNECTIONS = 32
WORKERS = 2


def test_thousand_requests_at_32_connections_open_no_nats_connection_of_their_own() -> None:
    """The server's count of connections ever made rises by the number of workers, no more."""
    # Threads for all connections in one worker: this test is about connections, not about overload.
    environment = {"WEB_CONCURRENCY": str(WORKERS), "GATEWAY_THREADS": str(CONNECTIONS + 4)}
    with running("connections", environment) as started:
        wait_until(lambda: started.nats.varz()["connections"] == WORKERS)
        at_boot = started.nats.varz()["total_connections"]
        assert at_boot == WORKERS
        with ScriptedRouter(started.nats.url):

            def work(number: int) -> set[int]:
                with started.gateway.client() as client:
                    return {send(client, turn) for turn in range(REQUESTS // CONNECTIONS + 1)}

            statuses = set().union(*at_once(range(CONNECTIONS), work))
            total = started.nats.varz()["total_connections"]
    assert statuses == {200, 202}
    assert total == at_boot + 1, "more than the Router's one were made"


def send(client: Client, turn: int) -> int:
    """Decides and publishes in turn."""
    if turn % 2:
        return client.post(DECIDE, decide_body()).status
    return client.post(USAGE, usage_body()).status
