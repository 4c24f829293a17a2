"""The fail-closed cache: one lookup at a time a key, answers for a while, failures never."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

import pytest

from gateway.access.cache import Answer, FailClosedCache
from gateway.sources import LOOKUP_SECONDS, SourceUnavailable
from tests.support.waiting import GENEROUS_SECONDS, wait_until

TTL_SECONDS = 60.0
DENY_TTL_SECONDS = 5.0


class Source:
    """Where the cache looks things up: counts, and answers when it is let."""

    def __init__(self, answer: Callable[[str], str | None] = lambda key: f"the {key}") -> None:
        self.answer = answer
        self.asked: list[str] = []
        self.asked_at: list[float] = []
        self.open = threading.Event()
        self.open.set()

    def look_up(self, key: str) -> str | None:
        self.asked_at.append(time.monotonic())
        self.asked.append(key)
        assert self.open.wait(GENEROUS_SECONDS)
        return self.answer(key)


def cache_of(
    source: Source,
    *,
    ttl: float = TTL_SECONDS,
    deny_ttl: float = DENY_TTL_SECONDS,
    max_entries: int = 100,
) -> FailClosedCache[str, str]:
    return FailClosedCache(
        source.look_up,
        name="things",
        ttl_seconds=ttl,
        deny_ttl_seconds=deny_ttl,
        max_entries=max_entries,
    )


def soon() -> float:
    return time.monotonic() + GENEROUS_SECONDS


@contextmanager
def waiting(
    cache: FailClosedCache[str, str], keys: list[str], deadline: float | None = None
) -> Iterator[list[Future[tuple[Answer[str], bool]]]]:
    """Somebody who asks for each of the keys, all at the same time."""
    with ThreadPoolExecutor(len(keys)) as pool:
        yield [pool.submit(cache.get, key, deadline or soon()) for key in keys]


# -- answers ------------------------------------------------------------------------------------------


def test_an_answer_is_used_again_and_says_so() -> None:
    source = Source()
    cache = cache_of(source)
    first, was_there = cache.get("a", soon())
    assert (first.value, was_there) == ("the a", False)
    assert cache.get("a", soon()) == (first, True)
    assert source.asked == ["a"]


def test_an_answer_is_good_for_its_ttl_from_the_start_of_the_lookup() -> None:
    source = Source()
    source.open.clear()
    cache = cache_of(source)
    with waiting(cache, ["a"]) as [asking]:
        wait_until(lambda: source.asked)
        before_it_answers = time.monotonic()
        source.open.set()
        answer, _ = asking.result(GENEROUS_SECONDS)
    assert answer.asked_at <= source.asked_at[0] < before_it_answers
    assert answer.good_until == answer.asked_at + TTL_SECONDS


def test_a_denial_is_an_answer_with_a_time_of_its_own() -> None:
    source = Source(lambda _: None)
    cache = cache_of(source)
    denial, _ = cache.get("a", soon())
    assert denial.value is None
    assert denial.good_until == denial.asked_at + DENY_TTL_SECONDS
    assert cache.get("a", soon()) == (denial, True)
    assert source.asked == ["a"]


@pytest.mark.parametrize("value", ["yes", None], ids=["answer", "denial"])
def test_what_is_over_is_looked_up_again_and_never_used_once_more(value: str | None) -> None:
    source = Source(lambda _: value)
    cache = cache_of(source, ttl=0.05, deny_ttl=0.05)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        before = time.monotonic()
        answer, was_there = cache.get("a", soon())
        assert not was_there or answer.good_until > before
    assert 2 <= len(source.asked) <= 8


def test_denials_that_are_not_to_be_kept_are_still_told() -> None:
    source = Source(lambda _: None)
    cache = cache_of(source, deny_ttl=0.0)
    for _ in range(3):
        assert cache.get("a", soon())[0].value is None
    assert source.asked == ["a", "a", "a"]


def test_what_took_longer_to_be_found_than_it_is_good_allows_nothing() -> None:
    source = Source()
    source.open.clear()
    cache = cache_of(source, ttl=0.01)
    with waiting(cache, ["a"]) as [asking]:
        wait_until(lambda: source.asked)
        wait_until(lambda: time.monotonic() > source.asked_at[0] + 0.02)
        source.open.set()
        with pytest.raises(SourceUnavailable, match="too late"):
            asking.result(GENEROUS_SECONDS)


def test_no_more_is_kept_than_was_said_and_what_is_in_use_stays() -> None:
    source = Source()
    cache = cache_of(source, max_entries=10)
    for number in range(50):
        cache.get("in use", soon())
        cache.get(str(number), soon())
    assert Counter(source.asked)["in use"] == 1
    cache.get("0", soon())
    assert Counter(source.asked)["0"] == 2


# -- one lookup at a time -----------------------------------------------------------------------------


def test_two_hundred_at_once_are_one_lookup() -> None:
    source = Source()
    source.open.clear()
    cache = cache_of(source)
    with waiting(cache, ["a"] * 200) as asking:
        wait_until(lambda: source.asked)
        source.open.set()
        answers = {one.result(GENEROUS_SECONDS)[0] for one in asking}
    assert len(answers) == 1
    assert source.asked == ["a"]


def test_a_lookup_that_hangs_keeps_nobody_from_other_keys() -> None:
    source = Source()
    source.open.clear()
    other = Source()
    cache: FailClosedCache[str, str] = FailClosedCache(
        lambda key: (source if key == "slow" else other).look_up(key),
        name="things",
        ttl_seconds=TTL_SECONDS,
        deny_ttl_seconds=DENY_TTL_SECONDS,
    )
    with waiting(cache, ["slow"]) as [asking]:
        wait_until(lambda: source.asked)
        assert cache.get("fast", soon())[0].value == "the fast"
        assert not asking.done()
        source.open.set()


def test_who_has_no_time_goes_and_the_lookup_goes_on_for_the_next() -> None:
    source = Source()
    source.open.clear()
    cache = cache_of(source)
    for _ in range(3):
        with pytest.raises(SourceUnavailable, match="no answer in time"):
            cache.get("a", time.monotonic() - 1)
    source.open.set()
    assert cache.get("a", soon())[0].value == "the a"
    assert source.asked == ["a"]


def test_who_waits_is_told_at_its_own_deadline() -> None:
    source = Source()
    source.open.clear()
    cache = cache_of(source)
    deadline = time.monotonic() + 0.05
    with pytest.raises(SourceUnavailable):
        cache.get("a", deadline)
    assert deadline <= time.monotonic() < deadline + LOOKUP_SECONDS
    source.open.set()


def test_lookups_at_once_are_bounded_and_what_is_over_is_told_at_once() -> None:
    source = Source()
    source.open.clear()
    cache = cache_of(source)
    impatient = time.monotonic() - 1
    refusals = Counter[str]()
    for number in range(300):
        with pytest.raises(SourceUnavailable) as caught:
            cache.get(str(number), impatient)
        refusals[str(caught.value)] += 1
    assert len(refusals) == 2 and refusals["things: too many lookups at once"] >= 200
    asked = len(source.asked)
    source.open.set()
    wait_until(lambda: cache.get("0", soon())[1])
    assert cache.get("299", soon())[0].value == "the 299"
    assert asked + 1 >= len(source.asked) >= asked


# -- failures -----------------------------------------------------------------------------------------


class Broken(BaseException):
    """As bad as it gets: no Exception even."""


@pytest.mark.parametrize(
    "error", [SourceUnavailable("away"), RuntimeError("bug"), TimeoutError(), Broken()], ids=repr
)
def test_a_failure_is_shared_by_who_waits_and_by_nobody_else(error: BaseException) -> None:
    def fail(_: str) -> str:
        raise error

    source = Source(fail)
    source.open.clear()
    cache = cache_of(source)
    with waiting(cache, ["a"] * 50) as asking:
        wait_until(lambda: source.asked and all(one.running() for one in asking))
        source.open.set()
        told = [one.exception(GENEROUS_SECONDS) for one in asking]
    assert {type(one) for one in told} == {SourceUnavailable}
    assert len({id(one) for one in told}) == 50, "one that many raise grows with each of them"
    failed = len(source.asked)
    assert failed < 10
    source.answer = lambda key: f"the {key}"
    assert cache.get("a", soon())[0].value == "the a"
    assert len(source.asked) == failed + 1


def test_a_failure_does_not_say_what_was_looked_up() -> None:
    def fail(key: str) -> str:
        raise RuntimeError(f"no {key}")

    with pytest.raises(SourceUnavailable) as caught:
        cache_of(Source(fail)).get("blk_secret", soon())
    assert "blk_secret" not in str(caught.value)


def test_a_failure_takes_nothing_away_from_what_is_still_good() -> None:
    source = Source()
    cache = cache_of(source)
    cache.get("a", soon())

    def fail(_: str) -> str:
        raise SourceUnavailable("away")

    source.answer = fail
    with pytest.raises(SourceUnavailable):
        cache.get("b", soon())
    assert cache.get("a", soon())[1]


# -- all of it at once --------------------------------------------------------------------------------


def test_no_lookup_is_lost_or_doubled_under_a_storm_of_threads() -> None:
    """Many threads, few keys, short times, failures: each key has one lookup at most at any moment, and never none
    for ever."""
    lock = threading.Lock()
    under_way = Counter[str]()
    most = Counter[str]()
    chance = Random(4)

    def look_up(key: str) -> str | None:
        with lock:
            under_way[key] += 1
            most[key] = max(most[key], under_way[key])
            outcome = chance.random()
        try:
            if outcome < 0.2:
                raise SourceUnavailable("away")
            if outcome < 0.25:
                raise Broken
            return key if outcome < 0.8 else None
        finally:
            with lock:
                under_way[key] -= 1

    cache: FailClosedCache[str, str] = FailClosedCache(
        look_up, name="things", ttl_seconds=0.004, deny_ttl_seconds=0.001, max_entries=4
    )
    keys = [str(number) for number in range(6)]

    def ask(seed: int) -> Counter[str]:
        mine = Random(seed)
        seen = Counter[str]()
        for _ in range(150):
            key = mine.choice(keys)
            deadline = time.monotonic() + mine.choice([0.0, 0.001, GENEROUS_SECONDS])
            try:
                answer, _was_there = cache.get(key, deadline)
            except SourceUnavailable:
                seen["failed"] += 1
            else:
                assert answer.value in (key, None)
                seen["told"] += 1
        return seen

    with ThreadPoolExecutor(16) as pool:
        seen = sum(pool.map(ask, range(16)), Counter[str]())
    assert set(most.values()) == {1}
    assert seen["told"] and seen["failed"]
    for key in keys:  # whatever happened to its last lookup, there will be another one

        def settled(key: str = key) -> bool:
            try:
                return cache.get(key, soon())[0].value in (key, None)
            except SourceUnavailable:
                return False

        wait_until(settled)
