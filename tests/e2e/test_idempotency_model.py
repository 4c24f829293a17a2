"""A state machine against the real thing: two instances, their workers killed, NATS killed, and a five-line model.

The short form runs with every suite. The long one takes some minutes; both print what they did::

    IDEMPOTENCY_MODEL_STEPS=2000 pytest -o faulthandler_timeout=0 tests/e2e/test_idempotency_model.py
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from tests.support.documents import new_id
from tests.support.http_client import Answer
from tests.support.idempotency_client import Asked, Client, Key
from tests.support.idempotency_fleet import Fleet, running_fleet, wait_until_each_worker_is_ready
from tests.support.idempotency_operations import (
    DECISION,
    METER,
    OPERATIONS,
    PUBLISHES,
    REPLAYED,
    Document,
    Operation,
)
from tests.support.load import at_once
from tests.support.scripted_router import ScriptedRouter
from tests.support.waiting import wait_until

STEPS = int(os.environ.get("IDEMPOTENCY_MODEL_STEPS", "160"))
STEPS_A_SEQUENCE = 40 if STEPS > 1_000 else 20
TROUBLES_A_SEQUENCE = 4 if STEPS > 1_000 else 1
TTL_SECONDS = 2.0
#: How much later than promised the server may forget, and a worker after it.
FORGETTING_SECONDS = 2.0
TENANTS = ("acme", "umbrella")
TIMES = {
    "IDEMPOTENCY_TTL_MS": str(int(TTL_SECONDS * 1000)),
    "ROUTER_REQUEST_TIMEOUT_MS": "1000",
    "IDEMPOTENCY_LEASE_MS": "1200",
}


# -- the model -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Known:
    """What an id was used for, the answer, and between which moments (monotonic) it was remembered."""

    content: int
    answer: Answer
    began: float
    ended: float


def says(known: Known | None, content: int) -> str:
    """The five lines: what becomes of a request under an id of which this is known."""
    if known is None:
        return "first"
    return "replay" if known.content == content else "conflict"


@dataclass
class Done:
    """What the steps of all examples came to."""

    steps: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    examples: int = 0


class Machine(RuleBasedStateMachine):
    """Requests under few ids, so that they meet; and what may happen to the processes in between.

    What is drawn depends on nothing that really happened: hypothesis takes a sequence that begins like an earlier one
    to be able to go on like it.
    """

    fleet: Fleet
    router: ScriptedRouter
    done: Done

    def __init__(self) -> None:
        super().__init__()
        self.client = Client(self.fleet)
        self.prefix = new_id("m")
        self.known: dict[Key, Known] = {}
        self.metered: dict[tuple[str, str], str] = {}
        self.effects: Counter[Key] = Counter()
        self.uncertain: set[Key] = set()
        self.begun_at = {
            one.stream: self.fleet.last_sequence(one.stream) for one in PUBLISHES if one.stream
        }
        self.asked_before = len(self.router.requests())
        self.troubles = 0
        self.disagrees = False
        self.done.examples += 1

    # -- requests ---------------------------------------------------------------------------------

    @rule(
        tenant=st.sampled_from(TENANTS),
        operation=st.sampled_from(OPERATIONS),
        number=st.integers(0, 3),
        content=st.integers(0, 1),
        instance=st.integers(0, 1),
    )
    def request(
        self, tenant: str, operation: Operation, number: int, content: int, instance: int
    ) -> None:
        """One request: a first one, a repeat, or another under an id that is taken."""
        self.done.steps["request"] += 1
        key = (tenant, operation, f"{self.prefix}-{number}")
        self.settle(key, content, self.client.ask(key, self.body(key, content), instance))

    @rule(
        which=st.integers(0, 63),
        tenant=st.sampled_from(("same", "same", "other")),
        content=st.sampled_from(("same", "same", "other")),
        instance=st.integers(0, 1),
    )
    def again(self, which: int, tenant: str, content: str, instance: int) -> None:
        """Under an id that is known: a repeat, another request, or another tenant's."""
        if not self.known:
            return
        self.done.steps["again"] += 1
        known = sorted(self.known, key=str)[which % len(self.known)]
        number = self.known[known].content
        owner, operation, id = known
        if tenant == "other":
            owner = next(one for one in TENANTS if one != owner)
        if content == "other":
            number = 1 - number
        key = (owner, operation, id)
        self.settle(key, number, self.client.ask(key, self.body(key, number), instance))

    @rule(operation=st.sampled_from(OPERATIONS), number=st.integers(0, 5))
    def burst(self, operation: Operation, number: int) -> None:
        """Equal requests of one tenant at one instant, over both instances."""
        self.done.steps["burst"] += 1
        key = ("acme", operation, f"{self.prefix}-{number}")
        content = self.known[key].content if key in self.known else 0
        body = self.body(key, content)
        began = time.monotonic()
        if self.remembers(key, began, began + TTL_SECONDS / 2) is None:
            return  # it may expire among them
        before = self.known.get(key)
        self.disagrees = True  # until all is compared
        asked = at_once(range(6), lambda n: self.client.ask(key, body, n))
        if max(one.ended for one in asked) > began + TTL_SECONDS / 2:
            # Too slow to say which of them came before an expiry: take what the last one says as new.
            self.uncertain.add(key)
        elif before is None and max(one.attempts for one in asked) == 1:
            assert sum(one.answer.header(REPLAYED) is None for one in asked) == 1
        assert (
            len({(one.answer.status, one.answer.body) for one in asked}) == 1
            or key in self.uncertain
        )
        first = min(asked, key=lambda one: one.answer.header(REPLAYED) is not None)
        self.settle(key, content, first)

    # -- what happens meanwhile -------------------------------------------------------------------

    @precondition(lambda self: self.troubles < TROUBLES_A_SEQUENCE)
    @rule(
        operation=st.sampled_from(OPERATIONS), number=st.integers(0, 3), delay_ms=st.integers(0, 12)
    )
    def kill_a_worker(self, operation: Operation, number: int, delay_ms: int) -> None:
        """In the midst of a request."""
        self.trouble("worker killed")
        with self.underway(operation, number, delay_ms):
            gateway = self.fleet.instances[1]  # where the client's first attempt goes
            os.kill(gateway.wait_for_workers(2)[0], signal.SIGKILL)

    @precondition(lambda self: self.troubles < TROUBLES_A_SEQUENCE)
    @rule(
        operation=st.sampled_from(OPERATIONS), number=st.integers(0, 3), delay_ms=st.integers(0, 12)
    )
    def restart_nats(self, operation: Operation, number: int, delay_ms: int) -> None:
        """In the midst of a request."""
        self.trouble("NATS killed")
        with self.underway(operation, number, delay_ms):
            self.fleet.nats.kill()
            self.fleet.nats.start()

    @precondition(lambda self: self.troubles < TROUBLES_A_SEQUENCE)
    @rule()
    def let_the_time_elapse(self) -> None:
        """Until nothing is remembered of any id."""
        self.trouble("time elapsed")
        if not self.known:
            return
        newest = max(known.ended for known in self.known.values())
        wait_until(lambda: time.monotonic() > newest + TTL_SECONDS + 0.5)
        for tenant, operation, id in self.known:
            path = operation.operation_path(id)
            wait_until(
                lambda path=path, tenant=tenant: self.fleet.get(path, tenant=tenant).status == 404,  # type: ignore[misc]
                message=f"{path} is still known",
            )
        self.known.clear()

    def trouble(self, what: str) -> None:
        self.done.steps[what] += 1
        self.troubles += 1

    @contextlib.contextmanager
    def underway(self, operation: Operation, number: int, delay_ms: int) -> Iterator[None]:
        """A client asks while the block runs, and until it is answered."""
        key = ("acme", operation, f"{self.prefix}-{number}")
        content = self.known[key].content if key in self.known else 0
        body = self.body(key, content)
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(self.client.ask, key, body, 0)
            time.sleep(delay_ms / 1000)  # so that the kill falls anywhere into the request
            yield
            self.settle(key, content, asking.result())

    # -- the comparison ---------------------------------------------------------------------------

    def settle(self, key: Key, content: int, asked: Asked) -> None:
        """What the model says is what the client got; from now on it knows it."""
        self.disagrees = True  # until all is compared
        self.done.repeated += asked.attempts > 1
        expected = says(self.known.get(key), content)
        alive = self.remembers(key, asked.began, asked.ended)
        if alive is None:  # its time may have ended just then: the answer says whether it did
            alive = asked.answer.code == "idempotency_conflict" or same(asked, self.known[key])
        if not alive:
            expected = "first"
        self.done.outcomes[expected] += 1
        if expected == "conflict":
            assert (asked.answer.status, asked.answer.code) == (409, "idempotency_conflict"), (
                key,
                asked,
            )
        elif expected == "replay":
            assert same(asked, self.known[key]), (key, asked, self.known[key])
            assert asked.answer.header(REPLAYED) == "true"
        else:
            self.first(key, asked)
            self.known[key] = Known(content, asked.answer, asked.began, asked.ended)
        self.disagrees = False

    def first(self, key: Key, asked: Asked) -> None:
        tenant, operation, id = key
        answer = asked.answer
        if asked.attempts == 1 and key not in self.uncertain:
            assert answer.header(REPLAYED) is None, (key, asked)
        if operation is METER:
            counts = self.metered.setdefault((tenant, pair_of(id)), id)
            emitted = answer.json()["emitted"]
            # Under a new claim the pair's own event is found emitted already, whoever did it.
            assert answer.status == (202 if emitted else 200), (key, asked)
            if emitted:
                assert counts == id, (key, asked, counts)
            else:
                assert answer.json()["duplicate_of"] == counts, (key, asked, counts)
        else:
            assert answer.status == operation.success, (key, asked)
        self.effects[key] += 1
        if asked.attempts > 1 and (
            operation is DECISION or asked.ended > asked.began + TTL_SECONDS * 0.9
        ):
            self.uncertain.add(key)  # the Router may have been asked by an attempt that broke off

    def remembers(self, key: Key, began: float, ended: float) -> bool | None:
        """Whether the id is remembered between the two moments; None if its time ends about then."""
        known = self.known.get(key)
        if known is None or began > known.ended + TTL_SECONDS + FORGETTING_SECONDS:
            return False
        return True if ended < known.began + TTL_SECONDS else None

    def body(self, key: Key, content: int) -> Document:
        tenant, operation, id = key
        more = (
            {"assignment_id": pair_of(id), "timestamp": self.now_ms} if operation is METER else {}
        )
        if operation.name == "acks":
            more = {"assignment_id": "of-" + id}
        body = operation.of_tenant(operation.body(id, **more), tenant)
        return operation.with_other_content(body) if content else body

    now_ms = time.time_ns() // 1_000_000

    def teardown(self) -> None:
        """At the end of each example: every effect happened as often as the model says, and none besides."""
        if self.disagrees:
            return  # which says it better
        found: Counter[Key] = Counter()
        events: Counter[tuple[str, str]] = Counter()
        for operation in PUBLISHES:
            assert operation.stream
            for message in self.fleet.stored(
                operation.stream, after=self.begun_at[operation.stream]
            ):
                payload = json.loads(message.payload)
                if message.subject != operation.subject:
                    continue
                if operation is METER:
                    events[(payload["tenant_id"], payload["assignment_id"])] += 1
                else:
                    found[(payload["tenant_id"], operation, payload[operation.key_type])] += 1
        for request in self.router.requests()[self.asked_before :]:
            payload = request.json()
            found[(payload["tenant_id"], DECISION, payload["assignment_id"])] += 1
        assert events == Counter(dict.fromkeys(self.metered, 1))
        for key, count in self.effects.items():
            if key[1] is not METER:
                assert found[key] == count or (key in self.uncertain and found[key] > count), (
                    f"{key}: {found[key]} effects, the model says {count}"
                )
        assert found.keys() <= self.effects.keys(), "effects that nobody asked for"


def pair_of(id: str) -> str:
    """Two usage ids share an assignment."""
    name, _, number = id.rpartition("-")
    return f"{name}-pair-{int(number) // 2}"


def same(asked: Asked, known: Known) -> bool:
    return (asked.answer.status, asked.answer.body) == (known.answer.status, known.answer.body)


# nats-py forgets to close a connection that breaks while it is being made again; Python says so when it finds it.
@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
@pytest.mark.timeout(3600)
def test_no_sequence_of_requests_and_troubles_disagrees_with_the_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run: Callable[..., None] = run_state_machine_as_test
    with running_fleet("model", TIMES) as fleet, ScriptedRouter(fleet.nats.url) as router:

        class OverFleet(Machine):
            """The machine over a fleet of its own."""

        OverFleet.fleet, OverFleet.router, OverFleet.done = fleet, router, Done()
        done = OverFleet.done
        began = time.monotonic()
        while sum(done.steps.values()) < STEPS:
            run(
                OverFleet,
                settings=settings(
                    max_examples=max(1, STEPS // STEPS_A_SEQUENCE),
                    stateful_step_count=STEPS_A_SEQUENCE,
                    deadline=None,
                    database=None,
                    # A failing sequence is shown as it was: to shrink it would kill some thousand more processes.
                    phases=(Phase.generate,),
                    suppress_health_check=list(HealthCheck),
                    print_blob=False,
                ),
            )
        took = time.monotonic() - began
        for gateway in fleet.instances:
            wait_until_each_worker_is_ready(gateway)
    gc.collect()  # here, where it is forgiven
    with capsys.disabled():
        print(
            f"\n{sum(done.steps.values())} steps in {done.examples} sequences, {took:.0f} s:"
            f" {dict(done.steps)}; outcomes {dict(done.outcomes)};"
            f" {done.repeated} requests had to be repeated; no disagreement"
        )
