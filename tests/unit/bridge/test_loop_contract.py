"""The loop thread's contract, one test a clause (the clauses are in ``bridge/loop.py``)."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bridge.errors import Closed, NotSent, Unknown
from bridge.loop import LoopThread
from tests.support.waiting import wait_until

MakeLoop = Callable[..., LoopThread]


@pytest.fixture
def make_loop() -> Iterator[MakeLoop]:
    made: list[LoopThread] = []

    def make(*, started: bool = True, max_in_flight: int = 8) -> LoopThread:
        thread = LoopThread(name="loop-under-test", max_in_flight=max_in_flight)
        made.append(thread)
        if started:
            thread.start()
        return thread

    yield make
    for thread in made:
        thread.close(2.0)


class Blocker:
    """Keeps the loop itself busy, so that what is submitted meanwhile stays in the queue."""

    def __init__(self, thread: LoopThread) -> None:
        self._release = threading.Event()
        self._entered = threading.Event()
        self.future = thread.submit(self._block, soon(30))
        assert self._entered.wait(5)

    async def _block(self) -> None:
        self._entered.set()
        self._release.wait(20)

    def release(self) -> None:
        self._release.set()
        self.future.result(5)


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


async def answer() -> int:
    return 42


def recording(ran: list[str]) -> Callable[[], Coroutine[Any, Any, None]]:
    async def operation() -> None:
        ran.append("ran")

    return operation


def test_an_operation_runs_on_the_loop_and_its_result_comes_back(make_loop: MakeLoop) -> None:
    thread = make_loop()
    name = thread.run(lambda: _thread_name(), soon())
    assert name == "loop-under-test"
    assert thread.run(answer, soon()) == 42


async def _thread_name() -> str:
    return threading.current_thread().name


def test_the_error_of_an_operation_reaches_its_caller(make_loop: MakeLoop) -> None:
    async def fail() -> None:
        raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        make_loop().run(fail, soon())


def test_submit_before_start_is_closed(make_loop: MakeLoop) -> None:
    thread = make_loop(started=False)
    with pytest.raises(Closed):
        thread.run(answer, soon())


def test_submit_after_close_is_closed(make_loop: MakeLoop) -> None:
    thread = make_loop()
    assert thread.close(2.0)
    with pytest.raises(Closed):
        thread.run(answer, soon())


def test_an_operation_cancelled_before_pick_up_never_runs(make_loop: MakeLoop) -> None:
    thread = make_loop()
    blocker = Blocker(thread)
    ran: list[str] = []
    future = thread.submit(recording(ran), soon())
    assert future.cancel()
    blocker.release()
    assert thread.run(answer, soon()) == 42  # the loop has passed the cancelled one
    assert ran == []
    wait_until(lambda: thread.in_flight == 0, 5, "the cancelled operation's place is free again")


def test_an_operation_whose_deadline_passed_in_the_queue_never_runs(make_loop: MakeLoop) -> None:
    thread = make_loop()
    blocker = Blocker(thread)
    ran: list[str] = []
    begun = time.monotonic()
    with pytest.raises(NotSent):
        thread.run(recording(ran), soon(0.1))
    assert time.monotonic() - begun < 2
    waiting = thread.submit(recording(ran), soon(0.05))
    wait_until(lambda: time.monotonic() > begun + 0.5, 5, "the deadline has passed")
    blocker.release()
    with pytest.raises(NotSent):
        waiting.result(5)
    assert ran == []


def test_an_operation_running_at_its_deadline_is_cancelled_and_unknown(
    make_loop: MakeLoop,
) -> None:
    thread = make_loop()
    cancelled = threading.Event()

    async def never() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    begun = time.monotonic()
    with pytest.raises(Unknown):
        thread.run(never, soon(0.1))
    assert time.monotonic() - begun < 2
    assert cancelled.wait(5)


def test_a_caller_does_not_wait_for_a_loop_that_hangs(make_loop: MakeLoop) -> None:
    thread = make_loop()
    release = threading.Event()

    async def hang() -> None:
        release.wait(20)

    begun = time.monotonic()
    with pytest.raises(Unknown):
        thread.run(hang, soon(0.2))
    assert time.monotonic() - begun < 3
    assert thread.lag_seconds < 5
    release.set()


def test_over_the_cap_an_operation_is_refused_at_once_and_a_place_is_free_when_one_ended(
    make_loop: MakeLoop,
) -> None:
    thread = make_loop(max_in_flight=2)
    ends = [asyncio.Event(), asyncio.Event()]
    futures = [thread.submit(event.wait, soon(30)) for event in ends]
    begun = time.monotonic()
    with pytest.raises(NotSent) as refused:
        thread.run(answer, soon(30))
    assert refused.value.overloaded
    assert time.monotonic() - begun < 1

    async def end() -> None:
        ends[0].set()

    assert thread._loop is not None
    asyncio.run_coroutine_threadsafe(end(), thread._loop).result(5)
    futures[0].result(5)
    wait_until(lambda: thread.in_flight == 1, 5, "one place is free")
    assert thread.run(answer, soon()) == 42


def test_close_gives_running_operations_time_to_end(make_loop: MakeLoop) -> None:
    thread = make_loop()

    async def brief() -> str:
        await asyncio.sleep(0.2)
        return "ended"

    future = thread.submit(brief, soon())
    wait_until(future.running, 5, "the operation runs")
    assert thread.close(5.0)
    assert future.result(0) == "ended"


def test_close_fails_what_waits_and_what_does_not_end(make_loop: MakeLoop) -> None:
    thread = make_loop()
    running = thread.submit(lambda: asyncio.sleep(60), soon(60))
    wait_until(running.running, 5, "the operation runs")
    blocker = Blocker(thread)
    ran: list[str] = []
    queued = thread.submit(recording(ran), soon(60))
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(thread.close, 1.0)
        with pytest.raises(Closed):
            queued.result(5)
        blocker.release()
        assert closing.result(5) is False  # not everything ended in order
    with pytest.raises(Unknown):
        running.result(0)
    assert ran == []
    assert not thread.alive()


def test_closing_twice_and_from_many_threads_is_allowed(make_loop: MakeLoop) -> None:
    thread = make_loop()
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda _: thread.close(5.0), range(4)))
    assert thread.close(5.0)


def test_closing_a_loop_that_was_never_started_is_allowed(make_loop: MakeLoop) -> None:
    thread = make_loop(started=False)
    assert thread.close(1.0)
    with pytest.raises(RuntimeError):
        thread.start()


def test_close_leaves_no_thread_and_no_task(make_loop: MakeLoop) -> None:
    thread = make_loop()
    ended: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("main")

    other = LoopThread(name="with-main", max_in_flight=1)
    other.start(main)
    assert other.run(answer, soon()) == 42
    assert other.close(5.0)
    assert ended == ["main"]
    assert thread.close(5.0)
    assert "loop-under-test" not in [t.name for t in threading.enumerate()]


def test_in_a_forked_child_an_operation_is_closed(make_loop: MakeLoop) -> None:
    thread = make_loop()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - runs in the child
        try:
            thread.run(answer, soon(1))
        except Closed:
            os.write(write_end, b"closed")
        except BaseException as error:
            os.write(write_end, repr(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    assert os.read(read_end, 100) == b"closed"
    os.close(read_end)
    assert thread.run(answer, soon()) == 42


def test_calling_from_the_loop_thread_raises_instead_of_hanging(make_loop: MakeLoop) -> None:
    thread = make_loop()

    async def nested() -> None:
        thread.run(answer, soon())

    with pytest.raises(RuntimeError, match="loop's own thread"):
        thread.run(nested, soon())


def test_the_operation_sees_the_callers_context_variables(make_loop: MakeLoop) -> None:
    thread = make_loop()
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        await asyncio.sleep(0)
        return variable.get()

    variable.set("of the caller")
    assert thread.run(read, soon()) == "of the caller"


def test_many_threads_get_their_own_answers(make_loop: MakeLoop) -> None:
    thread = make_loop(max_in_flight=64)

    def ask(number: int) -> int:
        async def echo() -> int:
            await asyncio.sleep(0.001)
            return number

        return thread.run(echo, soon(20))

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(500))) == list(range(500))
    assert thread.in_flight == 0
