"""A fleet: two instances of two workers each before one NATS server, which is what idempotency is promised for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from gateway.devstack.nats_server import NatsServer
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import Answer, Client, Headers, as_tenant
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.waiting import wait_until

HITS: Final = "idempotency_hit_total"
MISSES: Final = "idempotency_miss_total"
#: Tenants that the metrics name; all others are ``other``.
NAMED_TENANTS: Final = ("acme", "umbrella")

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "METRICS_TENANT_LABEL_ALLOWLIST": ",".join(NAMED_TENANTS),
    # 64 requests at one instant fit in, however the kernel spreads an instance's half over its workers.
    "GATEWAY_THREADS": "40",
}
#: A lease and a deadline so short that both can really pass.
DEADLINE_SECONDS: Final = 1.5
LEASE_SECONDS: Final = 2.0
SHORT_LEASE: Final[Mapping[str, str]] = {
    "ROUTER_REQUEST_TIMEOUT_MS": str(int(DEADLINE_SECONDS * 1000)),
    "IDEMPOTENCY_LEASE_MS": str(int(LEASE_SECONDS * 1000)),
}
_TCP_TABLE: Final = Path("/proc/net/tcp")
_ESTABLISHED: Final = "01"


@dataclass(frozen=True)
class Fleet:
    """A NATS server and the gateways before it."""

    nats: NatsServer
    instances: tuple[GatewayProcess, ...]
    reader: NatsSession

    def client(self, instance: int = 0, *, tenant: str = "acme") -> Client:
        """A connection of its own to one of the instances."""
        return self.instances[instance].client(as_tenant(tenant))

    def post(
        self,
        path: str,
        document: object,
        headers: Headers = (),
        *,
        tenant: str = "acme",
        instance: int = 0,
    ) -> Answer:
        """One request on a connection of its own."""
        with self.client(instance, tenant=tenant) as client:
            return client.post(path, document, headers)

    def get(self, path: str, *, tenant: str = "acme", instance: int = 0) -> Answer:
        """One request on a connection of its own."""
        with self.client(instance, tenant=tenant) as client:
            return client.get(path)

    @contextlib.contextmanager
    def each_worker(self, *, tenant: str = "acme") -> Iterator[list[Client]]:
        """A client for every worker of every instance, its connection open."""
        with contextlib.ExitStack() as stack:
            clients: list[Client] = []
            for gateway in self.instances:
                found = stack.enter_context(worker_clients(gateway, tenant=tenant))
                clients += [found[pid] for pid in sorted(found)]
            yield clients

    # -- what happened ------------------------------------------------------------------------------

    def total(self, metric: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels, over all workers of all instances."""
        return sum(_scraped(gateway, metric, labels) for gateway in self.instances)

    def stored(self, stream: str, *, after: int = 0) -> list[StoredMessage]:
        """The messages of a stream behind a sequence."""
        return self.reader.stream_messages(stream, after=after)

    def last_sequence(self, stream: str) -> int:
        """The sequence of the stream's newest message."""
        return self.reader.last_sequence(stream)


class Counting:
    """How the idempotency counters have risen since it was made, over the whole fleet."""

    def __init__(self, fleet: Fleet, key_type: str, tenant: str = "acme") -> None:
        self._fleet = fleet
        self._labels = {"tenant": tenant, "key_type": key_type}
        self._before = self._now()

    def rise(self) -> tuple[int, int]:
        """Misses and hits."""
        misses, hits = self._now()
        return misses - self._before[0], hits - self._before[1]

    def expect(self, *, misses: int, hits: int) -> None:
        """Exactly these, and no more a moment later than now."""
        wait_until(
            lambda: self.rise() >= (misses, hits),
            message=lambda: f"(misses, hits) rose by {self.rise()}, not ({misses}, {hits})",
        )
        assert self.rise() == (misses, hits)

    def _now(self) -> tuple[int, int]:
        return (
            int(self._fleet.total(MISSES, **self._labels)),
            int(self._fleet.total(HITS, **self._labels)),
        )


@contextlib.contextmanager
def running_fleet(
    name: str, environment: Mapping[str, str | None] | None = None, *, instances: int = 2
) -> Iterator[Fleet]:
    """Start all of it, ready to be asked; end all of it afterwards. A Router is the test's own matter."""
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(NatsServer(name=name))
        gateways = [
            GatewayProcess(nats.url, environment={**_ENVIRONMENT, **(environment or {})})
            for _ in range(instances)
        ]
        for gateway in gateways:
            stack.callback(gateway.close)
        stack.callback(_terminate, gateways)  # all at once, before each is waited for
        for gateway in gateways:
            gateway.spawn()
        for gateway in gateways:
            wait_until_each_worker_is_ready(gateway)
        reader = stack.enter_context(NatsSession(nats.url, name="reader"))
        yield Fleet(nats, tuple(gateways), reader)


def wait_until_each_worker_is_ready(gateway: GatewayProcess, workers: int = 2) -> None:
    """Wait until every worker accepts connections and says ``/readyz``: each connects to NATS on its own."""

    def listening() -> bool:
        assert gateway.running, f"the gateway ended:\n{gateway.output_tail()}"
        return gateway.get("/livez") is not None and len(gateway.workers()) == workers

    wait_until(listening, message=gateway.output_tail)
    with worker_clients(gateway) as clients:
        for client in clients.values():
            wait_until(
                lambda client=client: client.get("/readyz").status == 200,  # type: ignore[misc]
                message=gateway.output_tail,
            )


@contextlib.contextmanager
def worker_clients(gateway: GatewayProcess, *, tenant: str = "acme") -> Iterator[dict[int, Client]]:
    """pid → a client whose open connection that worker holds, for each worker of the gateway.

    Which worker accepts a connection is the kernel's choice: connections are opened until each has one.
    """
    clients: dict[int, Client] = {}
    spare: list[Client] = []

    def one_more() -> bool:
        client = gateway.client(as_tenant(tenant))
        answer = client.get("/livez")
        assert answer.status == 200, answer
        pid = wait_until(lambda: holder_of(client, gateway.workers()), message="nobody holds it")
        assert pid is not None
        if pid in clients:
            spare.append(client)
        else:
            clients[pid] = client
        return clients.keys() >= set(gateway.workers())

    try:
        wait_until(one_more, message=lambda: f"only {set(clients)} of {gateway.workers()} accept")
        yield clients
    finally:
        for client in (*clients.values(), *spare):
            client.close()


def holder_of(client: Client, pids: Iterable[int]) -> int | None:
    """Which of the processes holds the server's end of the client's connection, by the kernel's tables."""
    inode = _server_side_inode(client.local_port, client.port)
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) == f"socket:[{inode}]":
                        return pid
    return None


def _server_side_inode(client_port: int, server_port: int) -> str | None:
    """The inode of the connection's other end: the row whose local port is the server's."""
    for row in _TCP_TABLE.read_text().splitlines()[1:]:
        columns = row.split()
        local, remote = (int(address.rpartition(":")[2], 16) for address in columns[1:3])
        if (local, remote, columns[3]) == (server_port, client_port, _ESTABLISHED):
            return columns[9]
    return None


def _terminate(gateways: Iterable[GatewayProcess]) -> None:
    for gateway in gateways:
        if gateway.running:
            gateway.terminate()


def _scraped(gateway: GatewayProcess, metric: str, labels: Mapping[str, str]) -> float:
    with gateway.client(headers={}) as client:
        answer = client.get("/metrics", {"Accept": "text/plain"})
    assert answer.status == 200, answer
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
        if sample.name == metric and labels.items() <= sample.labels.items()
    )
