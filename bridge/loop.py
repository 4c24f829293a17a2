"""The loop thread: one asyncio loop on a thread of its own, and the only way in.

The contract, one test a clause (``tests/unit/bridge/test_loop_contract.py``):

* Before `start` and after `close`, `run` raises `Closed`; nothing runs.
* An operation cancelled before the loop picked it up never runs.
* An operation whose deadline passed in the queue never runs (`NotSent`).
* An operation still running at its deadline is cancelled; its caller gets `Unknown`, because what it
  has sent cannot be called back.
* With ``max_in_flight`` operations inside, the next one is refused at once (`NotSent`, ``overloaded``).
  A place is free again when the operation has ended, not when its caller has given up.
* `close` while operations wait or run: those not picked up get `Closed`, those running get time to end and
  are then cancelled (`Unknown`). No caller is left waiting. Closing twice is allowed, from any thread.
* In a forked child `run` raises `Closed`: the thread did not survive the fork.
* `run` on the loop's own thread raises `RuntimeError`: it would wait for itself.
* The operation sees the caller's context variables.

Why not ``asyncio.run_coroutine_threadsafe``: a coroutine cancelled before pick-up still runs its first
step there (and a NATS publish is queued in that step), a caller's timeout does not cancel it, and every
call wakes the loop. Here a burst of callers costs one wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from bridge.errors import Closed, NotSent, Unknown

T = TypeVar("T")
_log = logging.getLogger(__name__)

_CANCEL_GRACE_SECONDS = 0.05
"""How long after its deadline a running operation is cancelled: its own, more exact verdict comes first."""
_CALLER_GRACE_SECONDS = 0.15
"""How long after the deadline a caller gives up on a loop that does not answer at all."""
_BEAT_SECONDS = 0.5


class _State(Enum):
    NEW = auto()
    RUNNING = auto()
    CLOSING = auto()
    CLOSED = auto()


class _Job(Generic[T]):
    """One operation on its way through the loop."""

    __slots__ = ("context", "deadline", "expired", "future", "make", "task", "timer")

    def __init__(self, make: Callable[[], Awaitable[T]], deadline: float) -> None:
        self.make = make
        self.deadline = deadline
        self.context = contextvars.copy_context()
        self.future: Future[T] = Future()
        self.task: asyncio.Task[T] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.expired = False


class LoopThread:
    """See the module's docstring for what it promises. ``name`` names the thread in stack dumps."""

    def __init__(
        self,
        *,
        name: str,
        max_in_flight: int,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
        on_beat: Callable[[float], object] | None = None,
    ) -> None:
        self._name = name
        self._max_in_flight = max_in_flight
        self._loop_factory = loop_factory or _fastest_loop
        self._on_beat = on_beat
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._state = _State.NEW
        self._queue: deque[_Job[Any]] = deque()
        self._woken = False
        self._in_flight = 0
        self._pid = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._beat_at = 0.0
        self._lag_seconds = 0.0

    # -- for every thread but the loop's own ------------------------------------------------------

    def start(self, main: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Start the thread; ``main`` runs on the loop until `close` cancels it.

        Raises RuntimeError when called a second time: a loop thread is not restarted.
        """
        with self._lock:
            if self._state is not _State.NEW:
                raise RuntimeError("a loop thread is started once")
            self._state = _State.RUNNING
            self._pid = os.getpid()
            self._loop = self._loop_factory()
            self._beat_at = time.monotonic()
            self._thread = threading.Thread(
                target=self._run_loop, args=(self._loop, main), name=self._name, daemon=True
            )
        self._thread.start()

    def run(self, make: Callable[[], Awaitable[T]], deadline: float) -> T:
        """Run the awaitable that ``make`` returns on the loop and wait for its outcome.

        ``deadline`` is in ``time.monotonic()`` seconds. Raises what the operation raises, or NotSent,
        Unknown, Closed as the contract says; never later than the deadline by more than a moment.
        """
        future = self.submit(make, deadline)
        try:
            return future.result(max(0.0, deadline - time.monotonic()) + _CALLER_GRACE_SECONDS)
        except TimeoutError:
            if future.cancel():
                raise NotSent("the deadline passed before the operation started") from None
            if future.done():
                return future.result(0)  # it ended between the timeout and the question
            raise Unknown("the loop did not answer by the deadline") from None

    def submit(self, make: Callable[[], Awaitable[T]], deadline: float) -> Future[T]:
        """Hand an operation to the loop without waiting. The future ends by the deadline at the latest."""
        if self._thread is not None and threading.get_ident() == self._thread.ident:
            raise RuntimeError("called from the loop's own thread: await the operation instead")
        job = _Job(make, deadline)
        with self._lock:
            if self._state is not _State.RUNNING:
                raise Closed(f"the bridge is {self._state.name.lower()}")
            if self._pid != os.getpid():
                raise Closed("the bridge belongs to the parent process")
            if self._in_flight >= self._max_in_flight:
                raise NotSent(
                    f"{self._max_in_flight} operations are in flight already", overloaded=True
                )
            self._in_flight += 1
            self._queue.append(job)
            wake, self._woken = not self._woken, True
        if wake:
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._pick_up)
            except RuntimeError:  # closed in between; `close` has failed or will fail the job
                self._fail_queued()
        return job.future

    def close(
        self, timeout: float, finish: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> bool:
        """Stop within ``timeout`` seconds; True if everything ended in order.

        Half of the time is given to the operations in flight, then ``finish`` runs on the loop (closing
        connections), then what is left is cancelled and the thread joined.
        """
        end = time.monotonic() + timeout
        with self._lock:
            first = self._state is _State.RUNNING
            if self._state is _State.NEW or self._pid != os.getpid():
                self._state = _State.CLOSED
                self._closed.set()
                return True
            if first:
                self._state = _State.CLOSING
        if not first:
            return self._closed.wait(timeout)
        self._fail_queued()
        with self._lock:
            in_order = self._idle.wait_for(lambda: self._in_flight == 0, timeout / 2)
        loop, thread = self._loop, self._thread
        assert loop is not None and thread is not None
        if finish is not None:
            in_order &= self._finish(loop, finish, max(0.1, (end - time.monotonic()) * 0.8))
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop)
        thread.join(max(0.1, end - time.monotonic()))
        with self._lock:
            self._state = _State.CLOSED
        self._closed.set()
        return in_order and not thread.is_alive()

    @property
    def in_flight(self) -> int:
        """Operations handed in and not ended."""
        return self._in_flight

    @property
    def lag_seconds(self) -> float:
        """How late the loop's last heartbeat was."""
        return max(self._lag_seconds, time.monotonic() - self._beat_at - _BEAT_SECONDS, 0.0)

    def alive(self, tolerance_seconds: float = 5.0) -> bool:
        """Whether the thread runs and its loop has turned within the tolerance."""
        thread = self._thread
        return (
            thread is not None
            and thread.is_alive()
            and self._pid == os.getpid()
            and time.monotonic() - self._beat_at < tolerance_seconds + _BEAT_SECONDS
        )

    # -- on the loop ------------------------------------------------------------------------------

    def _run_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        main: Callable[[], Coroutine[Any, Any, None]] | None,
    ) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.call_soon(self._beat, loop)
            # The local name keeps the task alive: the loop itself holds tasks only weakly.
            _main_task = loop.create_task(main(), name="bridge-main") if main else None
            loop.run_forever()
        finally:
            try:
                _cancel_all(loop)
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                asyncio.set_event_loop(None)
                loop.close()
                self._fail_queued()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        now = time.monotonic()
        self._lag_seconds = max(0.0, now - self._beat_at - _BEAT_SECONDS)
        self._beat_at = now
        loop.call_later(_BEAT_SECONDS, self._beat, loop)
        if self._on_beat is not None:
            self._on_beat(self._lag_seconds)

    def _pick_up(self) -> None:
        with self._lock:
            jobs = list(self._queue)
            self._queue.clear()
            self._woken = False
        for job in jobs:
            self._begin(job)

    def _begin(self, job: _Job[Any]) -> None:
        if not job.future.set_running_or_notify_cancel():
            self._release()
            return
        remaining = job.deadline - time.monotonic()
        if remaining <= 0:
            self._release()
            job.future.set_exception(NotSent("the deadline passed before the operation started"))
            return
        assert self._loop is not None
        job.task = self._loop.create_task(_await(job.make), context=job.context)
        job.timer = self._loop.call_later(remaining + _CANCEL_GRACE_SECONDS, _expire, job)
        job.task.add_done_callback(lambda task: self._end(job, task))

    def _end(self, job: _Job[Any], task: asyncio.Task[Any]) -> None:
        assert job.timer is not None
        job.timer.cancel()
        self._release()
        if task.cancelled():
            why = "the deadline passed" if job.expired else "the bridge was closed"
            job.future.set_exception(Unknown(f"{why} while the operation was running"))
        elif (error := task.exception()) is not None:
            job.future.set_exception(error)
        else:
            job.future.set_result(task.result())
        job.task = (
            None  # breaks the cycle job → task → callback → job at once, not at the next collection
        )

    def _release(self) -> None:
        with self._lock:
            self._in_flight -= 1
            if self._in_flight == 0:
                self._idle.notify_all()

    def _fail_queued(self) -> None:
        with self._lock:
            jobs = list(self._queue)
            self._queue.clear()
        for job in jobs:
            self._release()
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(Closed("the bridge closed before the operation started"))

    @staticmethod
    def _finish(
        loop: asyncio.AbstractEventLoop,
        finish: Callable[[], Coroutine[Any, Any, None]],
        timeout: float,
    ) -> bool:
        finishing = finish()
        try:
            ended = asyncio.run_coroutine_threadsafe(finishing, loop)
        except RuntimeError:
            finishing.close()
            return False
        try:
            ended.result(timeout)
        except TimeoutError:
            ended.cancel()
            return False
        except Exception:
            _log.exception("closing the bridge's connection failed")
            return False
        return True


async def _await(make: Callable[[], Awaitable[T]]) -> T:
    return await make()


def _expire(job: _Job[Any]) -> None:
    if job.task is not None:
        job.expired = True
        job.task.cancel()


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel every task and let the cancellations run, bounded: a task may refuse to end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))


def _fastest_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
