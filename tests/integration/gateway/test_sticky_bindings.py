"""Sessions over a real bucket: who asks freely, who waits, who binds and who moves, when owners are late or gone."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from bridge import Bridge, BridgeConfig, BucketSpec, Bus, Entry
from gateway.devstack.nats_server import NatsServer
from gateway.sticky import BUCKET, Binding, Found, Sessions, Stickiness
from tests.support.nats_session import NatsSession
from tests.support.waiting import GENEROUS_SECONDS, PATIENCE, wait_until

TTL_MS = 60_000
SHORT_TTL_MS = 1_000
LONGEST_PATIENCE_SECONDS = 2.0


@dataclass
class Worker:
    """A connection and its view of the sessions, as in one worker."""

    bridge: Bridge
    sessions: Sessions = field(default_factory=Sessions)

    def find(self, key: str, seconds: float = GENEROUS_SECONDS) -> Found:
        """As a request that has so many seconds left."""
        deadline = time.monotonic() + seconds
        return self.bridge.run(lambda bus: self.sessions.find(bus, key, deadline), deadline)

    def settle(self, key: str, found: Found, provider: str) -> Stickiness:
        deadline = time.monotonic() + GENEROUS_SECONDS
        return self.bridge.run(
            lambda bus: self.sessions.settle(bus, key, found, provider, "why", deadline), deadline
        )

    def release(self, key: str, found: Found) -> None:
        async def work(bus: Bus) -> None:
            self.sessions.release(bus, key, found)

        self.bridge.run(work, time.monotonic() + GENEROUS_SECONDS)

    def entry(self, key: str) -> Entry | None:
        deadline = time.monotonic() + GENEROUS_SECONDS
        return self.bridge.run(lambda bus: bus.bucket(BUCKET).get(key, deadline=deadline), deadline)

    def binding(self, key: str) -> Binding | None:
        entry = self.entry(key)
        return None if entry is None else Binding.decode(entry.value)

    def write(self, key: str, value: bytes) -> None:
        deadline = time.monotonic() + GENEROUS_SECONDS
        self.bridge.run(
            lambda bus: bus.bucket(BUCKET).create(key, value, deadline=deadline), deadline
        )


def provider_of(binding: Binding | None) -> str | None:
    return None if binding is None else binding.provider


def started(server: NatsServer, ttl_ms: int) -> Iterator[list[Worker]]:
    config = BridgeConfig(
        servers=(server.url,), buckets=(BucketSpec(name=BUCKET, ttl_ms=ttl_ms),), max_in_flight=128
    )
    workers = [Worker(Bridge(config)) for _ in range(2)]
    for worker in workers:
        worker.bridge.start()
        assert worker.bridge.wait_ready(GENEROUS_SECONDS), worker.bridge.health()
    yield workers
    for worker in workers:
        worker.bridge.close(5.0)


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    with NatsServer(name="sticky-bindings") as server:
        yield server


@pytest.fixture(scope="module")
def workers(server: NatsServer) -> Iterator[list[Worker]]:
    """Shared by this module: use keys of your own."""
    yield from started(server, TTL_MS)


@pytest.fixture
def short_lived() -> Iterator[list[Worker]]:
    """Two workers whose bindings live for a second, on a server of their own."""
    with NatsServer(name="sticky-short") as server:
        yield from started(server, SHORT_TTL_MS)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield pool


@pytest.fixture
def key() -> str:
    return secrets.token_hex(20)


def bound(workers: list[Worker], key: str, provider: str) -> None:
    """Make the session's first request."""
    first = workers[0].find(key)
    assert first.claimed
    assert workers[0].settle(key, first, provider) is Stickiness.MISS


# -- cold start ----------------------------------------------------------------------------------------


def test_first_asks_freely_and_binds_its_provider_for_every_worker(
    workers: list[Worker], key: str
) -> None:
    first = workers[0].find(key)
    assert (first.stickiness, first.preferred) == (Stickiness.MISS, None)
    assert workers[0].settle(key, first, "p-1") is Stickiness.MISS
    for worker in workers:
        found = worker.find(key)
        assert (found.stickiness, found.preferred) == (Stickiness.HIT, "p-1")
        assert worker.settle(key, found, "p-1") is Stickiness.HIT
    binding = workers[1].binding(key)
    assert binding is not None
    assert (binding.provider, binding.generation, binding.reason) == ("p-1", 0, "why")


def test_all_who_come_while_the_first_is_asking_wait_for_its_provider(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    first = workers[0].find(key)
    waiting = [pool.submit(workers[number % 2].find, key) for number in range(8)]
    workers[0].settle(key, first, "p-1")
    found = [one.result() for one in waiting]
    assert {(one.stickiness, one.preferred) for one in found} == {(Stickiness.HIT, "p-1")}


def test_many_at_once_make_one_claim(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    def ask(number: int) -> Found:
        found = workers[number % 2].find(key)
        if found.preferred is None:
            workers[number % 2].settle(key, found, f"p-{number}")
        return found

    found = list(pool.map(ask, range(16)))
    assert sum(one.claimed for one in found) == 1
    assert sum(one.stickiness is Stickiness.HIT for one in found) == 15
    assert {one.preferred for one in found} == {None, provider_of(workers[0].binding(key))}


def test_claim_that_was_given_back_is_the_next_ones_at_once(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    first = workers[0].find(key)
    began = time.monotonic()
    waiting = pool.submit(workers[1].find, key)
    workers[0].release(key, first)
    second = waiting.result()
    assert second.claimed
    assert time.monotonic() - began < LONGEST_PATIENCE_SECONDS
    assert workers[1].settle(key, second, "p-2") is Stickiness.MISS
    assert workers[0].find(key).preferred == "p-2"


# -- owners that are late or gone ------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.2, 0.5, 1.0, GENEROUS_SECONDS])
def test_one_whose_patience_is_over_asks_freely_within_its_time_and_binds(
    workers: list[Worker], key: str, seconds: float
) -> None:
    """However short its time is: the bucket is there, so it is a miss and never "unavailable"."""
    workers[0].find(key)  # and is never heard of again
    began = time.monotonic()
    second = workers[1].find(key, seconds)
    waited = time.monotonic() - began
    assert (second.stickiness, second.preferred, second.claimed) == (Stickiness.MISS, None, False)
    assert waited < min(LONGEST_PATIENCE_SECONDS, seconds / 2) + 0.1 * PATIENCE
    assert workers[1].settle(key, second, "p-2") is Stickiness.MISS
    assert workers[0].find(key).preferred == "p-2"


def test_twenty_whose_patience_is_over_never_take_the_bucket_for_unavailable(
    workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    workers[0].find(key)
    waiting = [pool.submit(workers[n % 2].find, key, 1 + n / 100) for n in range(20)]
    assert {one.result().stickiness for one in waiting} == {Stickiness.MISS}


def test_one_whose_last_look_is_not_answered_goes_by_what_it_saw(
    server: NatsServer, workers: list[Worker], key: str, pool: ThreadPoolExecutor
) -> None:
    workers[0].find(key)
    looking = pool.submit(workers[1].find, key, 2.5)
    wait_until(lambda: workers[1].bridge.health().in_flight == 1)
    # Asked after the first look, on the same connection: when it is answered that one has seen the claim, and looks on.
    workers[1].entry(key)
    server.freeze()
    try:
        assert looking.result().stickiness is Stickiness.MISS
    finally:
        server.thaw()


def test_late_owner_does_not_replace_the_provider_that_another_one_bound(
    workers: list[Worker], key: str
) -> None:
    late = workers[0].find(key)
    second = workers[1].find(key, 0.5)
    assert workers[1].settle(key, second, "p-2") is Stickiness.MISS
    assert workers[0].settle(key, late, "p-1") is Stickiness.MISS
    assert [worker.find(key).preferred for worker in workers] == ["p-2", "p-2"]


def test_late_owner_gives_back_nothing_that_another_one_bound(
    workers: list[Worker], key: str
) -> None:
    late = workers[0].find(key)
    second = workers[1].find(key, 0.5)
    workers[1].settle(key, second, "p-2")
    revision = workers[1].entry(key)
    workers[0].release(key, late)
    # What was sent on this connection before has been done when the next question is answered.
    assert workers[0].entry(key) == revision


def test_one_who_lost_patience_does_not_give_back_the_owners_claim(
    workers: list[Worker], key: str
) -> None:
    owner = workers[0].find(key)
    impatient = workers[1].find(key, 0.2)
    workers[1].release(key, impatient)
    assert workers[1].entry(key) is not None
    assert workers[0].settle(key, owner, "p-1") is Stickiness.MISS
    assert workers[1].find(key).preferred == "p-1"


# -- moving ----------------------------------------------------------------------------------------------


def test_another_answer_moves_the_session_and_counts_its_generation_up(
    workers: list[Worker], key: str
) -> None:
    bound(workers, key, "p-1")
    found = workers[1].find(key)
    assert workers[1].settle(key, found, "p-2") is Stickiness.MOVED
    binding = workers[0].binding(key)
    assert binding is not None
    assert (binding.provider, binding.generation) == ("p-2", 1)
    assert workers[1].find(key).preferred == "p-2"


def test_of_many_who_move_it_at_once_the_first_counts(workers: list[Worker], key: str) -> None:
    bound(workers, key, "p-1")
    found = [workers[number % 2].find(key) for number in range(6)]
    told = [workers[n % 2].settle(key, one, f"p-{n + 2}") for n, one in enumerate(found)]
    assert set(told) == {Stickiness.MOVED}
    binding = workers[0].binding(key)
    assert binding is not None
    assert (binding.provider, binding.generation) == ("p-2", 1)


def test_local_copy_is_good_for_a_second_and_no_longer(workers: list[Worker], key: str) -> None:
    bound(workers, key, "p-1")
    assert workers[1].find(key).preferred == "p-1"
    began = time.monotonic()
    assert workers[0].settle(key, workers[0].find(key), "p-2") is Stickiness.MOVED
    # Hits meanwhile do not make the copy younger.
    wait_until(
        lambda: workers[1].find(key).preferred == "p-2",
        PATIENCE * 1.0,
        "the other worker does not follow",
    )
    assert time.monotonic() - began < PATIENCE * 1.0


def test_hits_do_not_write(workers: list[Worker], key: str) -> None:
    bound(workers, key, "p-1")
    before = workers[0].entry(key)
    for worker in workers * 3:
        assert worker.settle(key, worker.find(key), "p-1") is Stickiness.HIT
    assert workers[0].entry(key) == before


# -- time ------------------------------------------------------------------------------------------------


def until_gone(worker: Worker, key: str) -> None:
    wait_until(lambda: worker.entry(key) is None, message="the entry does not expire")


def test_provider_that_came_after_the_claim_had_expired_is_bound_all_the_same(
    short_lived: list[Worker], key: str
) -> None:
    """A Router that takes longer than the TTL: without this such a session would never stick."""
    first = short_lived[0].find(key)
    until_gone(short_lived[0], key)
    assert short_lived[0].settle(key, first, "p-1") is Stickiness.MISS
    assert short_lived[1].find(key).preferred == "p-1"


def test_move_of_what_expired_meanwhile_is_written_down(
    short_lived: list[Worker], key: str
) -> None:
    bound(short_lived, key, "p-1")
    found = short_lived[1].find(key)
    until_gone(short_lived[1], key)
    assert short_lived[1].settle(key, found, "p-2") is Stickiness.MOVED
    assert short_lived[0].find(key).preferred == "p-2"


def test_owner_whose_claim_had_expired_does_not_replace_what_came_after(
    short_lived: list[Worker], key: str
) -> None:
    late = short_lived[0].find(key)
    until_gone(short_lived[0], key)
    second = short_lived[1].find(key)
    assert second.claimed
    assert short_lived[0].settle(key, late, "p-1") is Stickiness.MISS
    assert short_lived[1].settle(key, second, "p-2") is Stickiness.MISS
    assert provider_of(short_lived[0].binding(key)) == "p-2"


def test_provider_of_a_session_that_was_dropped_meanwhile_is_not_bound(
    workers: list[Worker], key: str
) -> None:
    """What an operator took away stays away: the next request asks freely."""
    bound(workers, key, "p-1")
    found = workers[1].find(key)
    deadline = time.monotonic() + GENEROUS_SECONDS
    workers[0].bridge.run(lambda bus: bus.bucket(BUCKET).delete(key, deadline=deadline), deadline)
    assert workers[1].settle(key, found, "p-2") is Stickiness.MOVED
    assert workers[0].entry(key) is None


# -- what is no binding, and a bucket that is not there ---------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"not JSON",
        b"[]",
        b"{}",
        b'{"provider": 5, "generation": 0, "reason": "", "claim": "c"}',
        b'{"provider": "p-1", "generation": "0", "reason": "", "claim": "c"}',
        b'{"provider": "", "generation": 0, "reason": "", "claim": "c"}',
    ],
)
def test_entry_that_is_no_binding_is_replaced_by_one(
    workers: list[Worker], key: str, value: bytes
) -> None:
    workers[0].write(key, value)
    found = workers[0].find(key, 0.2)
    assert (found.stickiness, found.preferred) == (Stickiness.MISS, None)
    assert workers[0].settle(key, found, "p-1") is Stickiness.MISS
    assert workers[1].find(key).preferred == "p-1"


def test_bucket_that_is_deleted_is_unavailable_at_once_and_soon_there_again(key: str) -> None:
    with NatsServer(name="sticky-deleted") as server, NatsSession(server.url) as operator:
        for workers in started(server, TTL_MS):
            operator.delete_stream(f"KV_{BUCKET}")
            began = time.monotonic()
            found = workers[0].find(key)
            assert found == Found(Stickiness.UNAVAILABLE)
            assert time.monotonic() - began < 0.2 * PATIENCE
            assert workers[0].settle(key, found, "p-1") is Stickiness.UNAVAILABLE
            wait_until(
                lambda workers=workers: workers[0].find(key).claimed,  # type: ignore[misc]
                message="the bucket is not made again",
            )


def test_session_that_cannot_be_bound_says_so(key: str) -> None:
    with NatsServer(name="sticky-unbound") as server, NatsSession(server.url) as operator:
        for workers in started(server, TTL_MS):
            first = workers[0].find(key)
            operator.delete_stream(f"KV_{BUCKET}")
            assert workers[0].settle(key, first, "p-1") is Stickiness.UNAVAILABLE


def test_bridge_without_a_server_says_unavailable_at_once(key: str) -> None:
    with NatsServer(name="sticky-stopped") as server:
        for workers in started(server, TTL_MS):
            server.stop()
            wait_until(lambda: not workers[0].bridge.health().connected, message="still connected")  # noqa: B023
            began = time.monotonic()
            assert workers[0].find(key).stickiness is Stickiness.UNAVAILABLE
            assert time.monotonic() - began < 0.1 * PATIENCE


# -- giving up in the middle ------------------------------------------------------------------------------


def test_request_that_is_cancelled_while_it_waits_leaves_the_claim_alone(
    workers: list[Worker], key: str
) -> None:
    owner = workers[0].find(key)
    sessions = workers[1].sessions

    async def give_up(bus: Bus) -> None:
        waiting = asyncio.create_task(sessions.find(bus, key, time.monotonic() + GENEROUS_SECONDS))
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()

    run: Callable[..., None] = workers[1].bridge.run
    run(give_up, time.monotonic() + GENEROUS_SECONDS)
    assert workers[0].settle(key, owner, "p-1") is Stickiness.MISS
