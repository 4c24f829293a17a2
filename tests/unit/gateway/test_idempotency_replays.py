"""A worker's memory of finished outcomes: bounded, no longer than promised, void when the server's is."""

from __future__ import annotations

import threading
import time
import tracemalloc

import pytest

from gateway import json
from gateway.idempotency import Conflict, Replay, Replays


def replay(seconds: float = 60.0, fingerprint: str = "f", body: bytes = b"{}") -> Replay:
    return Replay(202, body, fingerprint, time.monotonic() + seconds)


class Generation:
    """The bridge's count of wiped streams and buckets."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> int:
        return self.number


def test_what_was_put_is_found_by_an_equal_request() -> None:
    replays = Replays(10, Generation())
    kept = replay(body=b"1")
    replays.put("k", kept)
    assert replays.get("k", "f") == kept
    assert replays.get("other", "f") is None


def test_an_answer_is_kept_in_as_much_memory_as_it_is_long() -> None:
    replays, count, length = Replays(1_000, Generation()), 1_000, 500
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            body = json.dumps({"text": f"{number:{length}}"})
            replays.put(str(number), replay(body=body))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert replays.get(str(count - 1), "f") is not None
    overhead = 1_000  # the entry, its key and its place in the cache
    assert (kept - before) / count < length + overhead


def test_another_request_under_the_key_is_a_conflict() -> None:
    replays = Replays(10, Generation())
    replays.put("k", replay(fingerprint="one"))
    with pytest.raises(Conflict):
        replays.get("k", "other")
    assert replays.get("k", "one") is not None


def test_entry_is_gone_when_its_record_is_and_is_no_conflict_either() -> None:
    replays = Replays(10, Generation())
    for seconds in (0.0, -1.0):
        replays.put("k", replay(seconds, fingerprint="one"))
        assert replays.get("k", "one") is None
        assert replays.get("k", "other") is None


def test_memory_is_bounded_and_what_was_not_used_for_longest_goes_first() -> None:
    replays = Replays(3, Generation())
    for key in "abc":
        replays.put(key, replay())
    assert replays.get("a", "f") is not None
    replays.put("d", replay())
    assert replays.get("b", "f") is None
    assert all(replays.get(key, "f") for key in "acd")


def test_everything_is_forgotten_when_a_bucket_or_stream_is_another_one_than_before() -> None:
    generation = Generation()
    replays = Replays(10, generation)
    replays.put("k", replay(fingerprint="one"))
    generation.number += 1
    assert replays.get("k", "other") is None
    replays.put("k", replay(fingerprint="other"))
    assert replays.get("k", "other") is not None
    generation.number += 1
    replays.put("new", replay())
    assert replays.get("k", "other") is None
    assert replays.get("new", "f") is not None


@pytest.mark.parametrize(("remaining", "told"), [(59.9, 59), (1.5, 1), (0.5, 0), (-3.0, 0)])
def test_time_that_remains_is_told_in_whole_seconds_and_never_as_more(
    remaining: float, told: int
) -> None:
    assert replay(remaining).expires_in_seconds == told


def test_many_threads_may_use_it_at_once() -> None:
    replays = Replays(8, Generation())
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(2_000):
                key = str((n + number) % 16)
                replays.put(key, replay(0.0005 if n % 3 else 60.0))
                replays.get(key, "f")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
