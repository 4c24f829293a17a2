"""Windows: never one request more than the limit in a window, and none less, whoever counts and whatever breaks."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from gateway.windows import VARIABLE, Uncountable, Windows, prepare
from tests.unit.gateway.given import settings

LENGTH_MS = 60_000
LENGTH_NS = LENGTH_MS * 1_000_000
SECOND_NS = 1_000_000_000


class Clock:
    """A monotonic clock that stands still unless told; it has been running for a while, as clocks of machines have."""

    def __init__(self) -> None:
        self.now = 5_000 * SECOND_NS

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "limits.sqlite"


@pytest.fixture
def opened(file: Path, clock: Clock) -> Iterator[Callable[[], Windows]]:
    """Makes windows on the one file, each as another worker would, and closes them."""
    made: list[Windows] = []

    def make() -> Windows:
        made.append(Windows(file, LENGTH_MS, clock))
        return made[-1]

    yield make
    for windows in made:
        windows.close()


@pytest.fixture
def windows(opened: Callable[[], Windows]) -> Windows:
    return opened()


def allowed(windows: Windows, times: int, key: str = "a", limit: int = 3) -> list[bool]:
    return [windows.take(key, limit).allowed for _ in range(times)]


def test_as_many_as_the_limit_are_allowed_and_no_more(windows: Windows) -> None:
    assert allowed(windows, 5) == [True, True, True, False, False]


def test_the_next_window_begins_when_this_one_has_passed(windows: Windows, clock: Clock) -> None:
    allowed(windows, 4)
    clock.now += LENGTH_NS - 1
    assert allowed(windows, 1) == [False]
    clock.now += 1
    assert allowed(windows, 4) == [True, True, True, False]


def test_a_window_begins_with_the_first_request_that_it_counts(
    windows: Windows, clock: Clock
) -> None:
    windows.take("a", 3)
    clock.now += LENGTH_NS // 2
    windows.take("b", 3)
    clock.now += LENGTH_NS // 2
    assert windows.take("a", 3).remaining == 2, "a's window has passed"
    assert windows.take("b", 3).remaining == 1, "b's has not"
    assert allowed(windows, 2, "b") == [True, False]
    clock.now += LENGTH_NS // 2
    assert windows.take("b", 3).remaining == 2, "now it has"


def test_refused_requests_do_not_prolong_the_window(windows: Windows, clock: Clock) -> None:
    allowed(windows, 3)
    for _ in range(10):
        clock.now += LENGTH_NS // 10 - 1
        assert allowed(windows, 1) == [False]
    clock.now += 10
    assert allowed(windows, 1) == [True]


def test_keys_do_not_share_a_window(windows: Windows) -> None:
    assert allowed(windows, 4, "a") == [True, True, True, False]
    assert allowed(windows, 4, "A") == [True, True, True, False]
    assert allowed(windows, 4, "a\0b") == [True, True, True, False]


def test_what_remains_counts_down_to_nothing(windows: Windows) -> None:
    assert [windows.take("a", 3).remaining for _ in range(5)] == [2, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("passed_ns", "reset_seconds"),
    [
        (0, 60),
        (1, 60),
        (SECOND_NS, 59),
        (LENGTH_NS - SECOND_NS - 1, 2),
        (LENGTH_NS - SECOND_NS, 1),
        (LENGTH_NS - 1, 1),
    ],
)
def test_the_reset_is_in_seconds_rounded_up_and_never_now(
    windows: Windows, clock: Clock, passed_ns: int, reset_seconds: int
) -> None:
    windows.take("a", 1)
    clock.now += passed_ns
    assert windows.take("a", 1).reset_seconds == reset_seconds


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),  # key
            st.integers(0, 1),  # which of two workers
            st.sampled_from([0, 1, LENGTH_NS // 3, LENGTH_NS - 1, LENGTH_NS, 5 * LENGTH_NS]),
        ),
        max_size=60,
    ),
    st.integers(1, 4),
)
def test_two_workers_together_allow_what_one_fixed_window_would(
    steps: list[tuple[str, int, int]], limit: int
) -> None:
    clock = Clock()
    model: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        workers = [Windows(Path(folder) / "limits.sqlite", LENGTH_MS, clock) for _ in range(2)]
        try:
            for key, worker, pause in steps:
                clock.now += pause
                count, ends = model.get(key, (0, 0))
                if ends <= clock.now:
                    count, ends = 0, clock.now + LENGTH_NS
                expected = count < limit
                model[key] = (count + expected, ends)
                tally = workers[worker].take(key, limit)
                assert tally.allowed == expected
                assert tally.remaining == limit - count - expected
        finally:
            for windows in workers:
                windows.close()


@pytest.mark.parametrize("workers", [1, 3])
def test_many_threads_at_once_are_allowed_exactly_the_limit(
    opened: Callable[[], Windows], workers: int
) -> None:
    limit, threads, each = 100, 12, 40
    shared = [opened() for _ in range(workers)]
    start = threading.Barrier(threads)

    def work(number: int) -> int:
        start.wait(10)
        return sum(allowed(shared[number % workers], each, limit=limit))

    with ThreadPoolExecutor(threads) as pool:
        assert sum(pool.map(work, range(threads))) == limit


def test_windows_that_have_passed_leave_the_file(
    windows: Windows, file: Path, clock: Clock
) -> None:
    for number in range(50):
        windows.take(f"tenant-{number}", 3)
    clock.now += LENGTH_NS
    windows.take("another", 3)
    with closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT key FROM windows").fetchall() == [("another",)]


# -- when the file fails ----------------------------------------------------------------------------


def test_a_file_that_was_removed_is_made_anew_by_all_workers(
    opened: Callable[[], Windows], file: Path, clock: Clock
) -> None:
    one, other = opened(), opened()
    assert allowed(one, 2) + allowed(other, 2) == [True, True, True, False]
    for path in file.parent.iterdir():
        path.unlink()
    clock.now += SECOND_NS
    assert allowed(one, 1) + allowed(other, 3) == [True, True, True, False]


def test_a_worker_that_comes_when_the_file_was_removed_counts_with_the_others(
    opened: Callable[[], Windows], file: Path, clock: Clock
) -> None:
    old = opened()
    allowed(old, 2)
    for path in file.parent.iterdir():
        path.unlink()
    new = opened()
    assert allowed(new, 2) == [True, True]
    clock.now += SECOND_NS
    assert allowed(old, 2) == [True, False]


def test_a_lock_that_is_not_given_back_ends_the_wait_and_then_nobody_waits(
    windows: Windows, file: Path, clock: Clock
) -> None:
    """As a frozen worker would hold it."""
    windows.take("a", 3)
    with closing(sqlite3.connect(file, isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        with pytest.raises(Uncountable, match="locked"):
            windows.take("a", 3)
        with pytest.raises(Uncountable, match="less than a second ago"):
            windows.take("a", 3)
        frozen.execute("COMMIT")
    with pytest.raises(Uncountable):  # left alone for the whole second
        windows.take("a", 3)
    clock.now += SECOND_NS
    assert windows.take("a", 3).remaining == 1, "what was not counted was counted"


def test_a_lock_that_is_given_back_in_time_is_waited_for(windows: Windows, file: Path) -> None:
    windows.take("a", 3)
    with closing(sqlite3.connect(file, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        release = threading.Timer(0.02, other.execute, ["COMMIT"])
        release.start()
        assert windows.take("a", 3).remaining == 1
        release.join()


def test_a_file_in_a_folder_that_is_not_there_cannot_be_used(tmp_path: Path) -> None:
    windows = Windows(tmp_path / "missing" / "limits.sqlite", LENGTH_MS)
    with pytest.raises(Uncountable, match="unable to open"):
        windows.take("a", 3)


def test_a_file_that_is_none_of_ours_cannot_be_used_and_is_left_as_it_is(
    windows: Windows, file: Path
) -> None:
    content = b"something else\n" * 1000
    file.write_bytes(content)
    with pytest.raises(Uncountable):
        windows.take("a", 3)
    assert file.read_bytes() == content


# -- the start --------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def variable_stays_in_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test's master hands on."""
    monkeypatch.setenv(VARIABLE, "")


def test_the_master_makes_nothing_when_no_limit_is_on(tmp_path: Path) -> None:
    prepare(settings(RATE_LIMIT_FILE=str(tmp_path / "limits")), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["RATE_LIMIT_GLOBAL_REQUESTS", "RATE_LIMIT_TENANT_REQUESTS"])
def test_the_master_hands_a_file_of_its_own_to_the_workers(tmp_path: Path, name: str) -> None:
    prepare(settings(**{name: "3"}), tmp_path)
    handed = settings(**{name: "3", VARIABLE: os.environ[VARIABLE]}).rate_limit_file
    assert handed is not None and handed.parent == tmp_path and handed.is_file()


def test_the_master_begins_with_no_request_counted(windows: Windows, file: Path) -> None:
    assert allowed(windows, 4) == [True, True, True, False]
    windows.close()
    prepare(settings(RATE_LIMIT_GLOBAL_REQUESTS="3", RATE_LIMIT_FILE=str(file)), file.parent)
    assert allowed(windows, 4) == [True, True, True, False]


def test_the_master_that_replaces_another_takes_its_workers_along(
    opened: Callable[[], Windows], file: Path, clock: Clock
) -> None:
    old = opened()
    allowed(old, 2)
    prepare(settings(RATE_LIMIT_GLOBAL_REQUESTS="3", RATE_LIMIT_FILE=str(file)), file.parent)
    new = opened()
    assert allowed(new, 2) == [True, True]
    clock.now += SECOND_NS
    assert allowed(old, 2) == [True, False]


def test_the_master_removes_no_file_that_holds_something_else(file: Path) -> None:
    with closing(sqlite3.connect(file)) as orders, orders:
        orders.execute("CREATE TABLE windows (orders)")
    content = file.read_bytes()
    with pytest.raises(Uncountable, match="something else"):
        prepare(settings(RATE_LIMIT_GLOBAL_REQUESTS="3", RATE_LIMIT_FILE=str(file)), file.parent)
    assert file.read_bytes() == content


@pytest.mark.parametrize("place", ["missing/limits", "."], ids=["no folder", "a folder"])
def test_the_master_does_not_start_with_a_file_that_cannot_be_used(
    tmp_path: Path, place: str
) -> None:
    wrong = settings(RATE_LIMIT_GLOBAL_REQUESTS="3", RATE_LIMIT_FILE=str(tmp_path / place))
    with pytest.raises(Uncountable, match=VARIABLE):
        prepare(wrong, tmp_path)
