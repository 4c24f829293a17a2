"""Site: what is struck. One NATS server or three, two instances of the gateway, a Router, a worker, and the clients."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.devstack.nats_server import NatsServer, NatsServerError
from tests.faults.siege.clients import Siege
from tests.faults.siege.effects import METER, TENANTS, Effect
from tests.faults.siege.verdict import Excuse, Observed
from tests.support.gateway_process import GatewayProcess
from tests.support.http_client import JSON, Client, as_tenant
from tests.support.nats_cluster import nats_cluster
from tests.support.nats_session import NatsSession, StoredMessage
from tests.support.result_messages import RESULT_SUBJECT, result_body, result_headers
from tests.support.scripted_router import RouterRequest, ScriptedRouter, decide_for

DEADLINE_SECONDS: Final = 1.0
LATE_SECONDS: Final = 0.5
LEASE_SECONDS: Final = 2.0
STREAMS: Final = ("BEAMLINE_EXEC", "BEAMLINE_USAGE")
#: Short deadlines and leases, so that waiting for them does not make up the run.
ENVIRONMENT: Final = {
    "WEB_CONCURRENCY": "2",
    "GATEWAY_THREADS": "16",
    "GATEWAY_DRAIN_MS": "100",
    "LOG_LEVEL": "warning",
    "ROUTER_REQUEST_TIMEOUT_MS": f"{DEADLINE_SECONDS * 1000:.0f}",
    "IDEMPOTENCY_LEASE_MS": f"{LEASE_SECONDS * 1000:.0f}",
    "IDEMPOTENCY_TTL_MS": "900000",
    "NATS_ACK_WAIT_MS": "2000",
    "NATS_BACKOFF_MS": "200,500,1000",
    "NATS_MAX_DELIVER": "50",
}
CLIENTS: Final = 20
_RESULT_SECONDS: Final = 0.1
_RESULT_TIMEOUT_SECONDS: Final = 2.0
_METERED_SECONDS: Final = 25.0
_SETTLE_SECONDS: Final = 30.0
_PROBE_SECONDS: Final = 3.0
_SUCCESSES: Final = 3
_NEVER_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Plan:
    """How a site is made."""

    nodes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    per_instance: Sequence[Mapping[str, str]] = ({}, {})
    nats_folder: Path | None = None
    jetstream_config: str = ""
    before_nats: Callable[[NatsServer], contextlib.AbstractContextManager[str]] | None = None
    """Makes what stands between NATS and the gateways; gives the address that they connect to."""
    link: object = None
    """What ``before_nats`` belongs to, for the faults that act on it."""
    clients: int = CLIENTS
    about: str = ""
    """What is known only when it is made, for the report."""


class Site:
    """A site at work; made by `running_site`. Faults act on its parts."""

    def __init__(
        self,
        plan: Plan,
        nodes: list[NatsServer],
        gateways: list[GatewayProcess],
        router: ScriptedRouter,
        executions: _Executions,
        siege: Siege,
        worker: _Worker,
        dice: random.Random,
    ) -> None:
        self.plan = plan
        self.nodes = nodes
        self.gateways = gateways
        self.router = router
        self.decide = executions.decide
        self.dice = dice
        self.problems: list[str] = []
        self.excuses: list[Excuse] = []
        self.seen: Counter[str] = Counter()
        """What faults looked for beside the verdict, and how often it was there; for the report."""
        self.siege = siege
        self._executions = executions
        self._worker = worker
        self._probes: list[Effect] = []

    @property
    def nats(self) -> NatsServer:
        """The only server."""
        [server] = self.nodes
        return server

    def any_gateway(self) -> GatewayProcess:
        return self.dice.choice(self.gateways)

    def any_worker(self) -> int:
        """The pid of some gateway worker that lives now."""
        workers = [pid for gateway in self.gateways for pid in gateway.workers()]
        assert workers, "there is no worker at all"
        return self.dice.choice(workers)

    def excuse(self, pid: int, since: float, until: float, ports: frozenset[int]) -> None:
        """Requests at the frozen process ``pid`` are not judged by their time."""
        self.excuses.append(Excuse(ports | client_ports(pid), since, until))

    # -- what is asked beside the clients -----------------------------------------------------------

    def await_service(self, limit: float) -> float:
        """Seconds until every instance has served new effects, several in succession on new connections."""
        begun = time.monotonic()
        for gateway in self.gateways:
            succeeded = 0
            while succeeded < _SUCCESSES:
                succeeded = succeeded + 1 if self._probe(gateway) else 0
                if time.monotonic() - begun > max(limit, _NEVER_SECONDS):
                    self.problems.append(f"{gateway.url} does not serve again")
                    return time.monotonic() - begun
                if not succeeded:
                    time.sleep(0.02)
        return time.monotonic() - begun

    def refuses(self) -> bool:
        """Whether some instance does not serve a new effect now."""
        return not all(self._probe(gateway) for gateway in self.gateways)

    def _probe(self, gateway: GatewayProcess) -> bool:
        tenant = self.dice.choice(TENANTS)
        effect = Effect(METER.name, tenant, f"probe-{os.getpid()}-{time.monotonic_ns()}")
        self._probes.append(effect)
        content, request_id = effect.request()
        body = content.partition(b"\r\n\r\n")[2]
        headers = {"Content-Type": JSON, **as_tenant(tenant), "X-Request-ID": request_id}
        try:
            with Client(
                gateway.host, gateway.port, headers=headers, timeout=_PROBE_SECONDS
            ) as client:
                answer = client.request("POST", METER.path, body=body)
        except (OSError, AssertionError):
            return False
        head = "".join(f"\r\n{name}: {value}" for name, value in answer.header_list) + "\r\n"
        crossed = effect.note(request_id, answer.status, head.encode(), answer.body)
        if crossed:
            self.problems.append(f"crossed: {crossed}")
        return answer.status == METER.status

    # -- the end ------------------------------------------------------------------------------------

    def observe(self, returns: Sequence[float]) -> Observed:
        """End the load, wait until all is settled, and read what there is."""
        results = self._worker.finish()
        ledger = self.siege.finish(_SETTLE_SECONDS)
        # A probe that was not answered is nothing that anybody goes on with.
        ledger.effects += [probe for probe in self._probes if probe.answers]
        ledger.requests += len(self._probes)
        messages = self._stored({place for place, acknowledged in results.items() if acknowledged})
        problems = list(self.problems)
        for gateway in self.gateways:
            tracebacks = _tracebacks(gateway.output())
            problems += [f"an exception in a gateway's log: {one}" for one in tracebacks[:2]]
        return Observed(
            ledger,
            messages,
            self._executions.all(),
            results,
            self.excuses,
            returns,
            problems,
            LEASE_SECONDS,
        )

    def _stored(self, results: set[tuple[str, str]]) -> list[StoredMessage]:
        """All effects; once the results' are among them, or have had their time."""
        end = time.monotonic() + _METERED_SECONDS
        with NatsSession(self.nodes[0].url, name="checker") as session:
            found = {stream: _read(session, stream, []) for stream in STREAMS}
            while time.monotonic() < end:
                metered = set()
                for one in found["BEAMLINE_USAGE"]:
                    document = json.loads(one.payload)
                    metered.add((document["tenant_id"], document.get("assignment_id")))
                if results <= metered:
                    break
                time.sleep(0.5)
                found["BEAMLINE_USAGE"] = _read(session, "BEAMLINE_USAGE", found["BEAMLINE_USAGE"])
        return [one for messages in found.values() for one in messages]


def _read(session: NatsSession, stream: str, known: list[StoredMessage]) -> list[StoredMessage]:
    """All of a stream, given its beginning. A cluster may still be choosing who answers."""
    for last in (False, False, True):
        try:
            return known + session.stream_messages(stream, after=known[-1].seq if known else 0)
        except Exception:
            if last:
                raise
            time.sleep(2.0)
    raise AssertionError("unreachable")


def _tracebacks(output: str) -> list[str]:
    """The exceptions that a gateway logged, each by its last words."""
    found = re.findall(r'"(?:exc_info|exception|traceback)": ?"((?:[^"\\]|\\.)*)"', output)
    found += re.findall(r"Traceback \(most recent call last\):\n(?: .*\n)*(.*)", output)
    return [one[-300:] for one in found]


def client_ports(pid: int) -> frozenset[int]:
    """The far ends of a process's TCP connections on this machine."""
    own = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if match := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                    own.add(match[1])
    found = set()
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            words = line.split()
            if words[9] in own:
                found.add(int(words[2].rpartition(":")[2], 16))
    return frozenset(found)


class _Executions:
    """What the Router was asked, by tenant and id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._of: dict[tuple[str, str], list[tuple[str, float]]] = defaultdict(list)

    def decide(self, asked: RouterRequest) -> dict[str, Any]:
        document = asked.json()
        if "assignment_id" in document:
            with self._lock:
                self._of[document["tenant_id"], document["assignment_id"]].append(
                    (document["request_id"], time.monotonic())
                )
        return decide_for(asked)

    def all(self) -> dict[tuple[str, str], list[tuple[str, float]]]:
        with self._lock:
            return dict(self._of)


class _Worker:
    """Publishes results of assignments, some of them twice, each until the stream has it."""

    def __init__(self, url: str) -> None:
        self._session = NatsSession(url, name="worker")
        self._results: dict[tuple[str, str], bool] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="results")

    def start(self) -> None:
        self._session.open()
        self._thread.start()

    def finish(self) -> dict[tuple[str, str], bool]:
        """Publish no more; which were stored."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        return self._results

    def close(self) -> None:
        self.finish()
        self._session.close()

    def _work(self) -> None:
        number = 0
        while not self._stop.wait(_RESULT_SECONDS):
            number += 1
            tenant = TENANTS[number % len(TENANTS)]
            assignment = f"result-{time.monotonic_ns()}"
            body = result_body(assignment_id=assignment, provider_id=tenant)
            self._results[tenant, assignment] = False
            for _ in range(1 + (number % 3 == 0)):
                # Of the same message's repeats the stream keeps one; two messages are metered once.
                headers = result_headers(tenant)
                for _ in range(20):
                    if self._publish(body, headers):
                        self._results[tenant, assignment] = True
                        break
                    if self._stop.wait(0.1):
                        break

    def _publish(self, body: dict[str, Any], headers: dict[str, str]) -> bool:
        async def publish() -> None:
            await self._session.jetstream.publish(
                RESULT_SUBJECT,
                json.dumps(body).encode(),
                headers=dict(headers),
                timeout=_RESULT_TIMEOUT_SECONDS,
            )

        try:
            self._session.call(publish(), timeout=_RESULT_TIMEOUT_SECONDS + 1.0)
        except Exception:  # the server is what is struck; whatever it is, it was not acknowledged
            return False
        return True


# -- making it --------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_site(plan: Plan, seed: int) -> Iterator[Site]:
    """The site, under load; everything of it ends with the block."""
    executions = _Executions()
    with contextlib.ExitStack() as stack:
        if plan.nodes == 1:
            single = NatsServer(
                plan.nats_folder, name="siege", jetstream_config=plan.jetstream_config
            )
            nodes = [stack.enter_context(single)]
        else:
            nodes = stack.enter_context(nats_cluster(plan.nodes))
        url = ",".join(node.url for node in nodes)
        if plan.before_nats is not None:
            url = stack.enter_context(plan.before_nats(nodes[0]))
        router = ScriptedRouter(nodes[0].url, executions.decide)
        router.open()
        stack.callback(router.close)
        replicas = {"NATS_REPLICAS": str(plan.nodes)}
        gateways = []
        for more in plan.per_instance:
            gateway = GatewayProcess(
                url, environment={**ENVIRONMENT, **replicas, **plan.environment, **more}
            )
            stack.callback(gateway.close)
            gateways.append(gateway)
        _start_all(gateways)
        worker = _Worker(nodes[0].url)
        stack.callback(worker.close)
        siege = Siege(
            [(gateway.host, gateway.port) for gateway in gateways],
            clients=plan.clients,
            limit=DEADLINE_SECONDS + LATE_SECONDS,
            seed=seed,
        )
        stack.callback(siege.close)
        site = Site(plan, nodes, gateways, router, executions, siege, worker, random.Random(seed))
        worker.start()
        siege.begin()
        try:
            yield site
        finally:
            for node in nodes:
                with contextlib.suppress(NatsServerError):
                    node.thaw()
            for gateway in gateways:
                gateway.kill()  # how they end in order is a kind of fault; nobody waits for it here


def _start_all(gateways: Sequence[GatewayProcess]) -> None:
    # One after the other would be no faster to begin with, and slower on more than one core.
    with ThreadPoolExecutor(len(gateways)) as pool:
        for started in [pool.submit(gateway.start) for gateway in gateways]:
            started.result()


__all__ = ["Plan", "Site", "client_ports", "running_site"]
