"""The loop's heartbeat: how late it was is told twice a second, on the loop, and whoever hears it may fail."""

from __future__ import annotations

import asyncio
import threading
import time

from bridge.loop import LoopThread
from tests.support.waiting import wait_until


def test_each_beat_tells_on_the_loop_how_late_it_was() -> None:
    heard: list[tuple[float, int]] = []
    loop = LoopThread(
        name="beating",
        max_in_flight=1,
        on_beat=lambda late: heard.append((late, threading.get_ident())),
    )
    loop.start()
    try:
        wait_until(lambda: len(heard) >= 3)
        assert all(late >= 0 for late, _ in heard)
        assert {ident for _, ident in heard} != {threading.get_ident()}
        assert len({ident for _, ident in heard}) == 1
    finally:
        loop.close(1.0)


def test_a_loop_that_was_held_up_is_told_of() -> None:
    heard: list[float] = []
    loop = LoopThread(name="held-up", max_in_flight=1, on_beat=heard.append)
    loop.start()

    async def hold_up() -> None:
        time.sleep(1.2)  # noqa: ASYNC251 - this is what must not happen

    try:
        loop.run(hold_up, time.monotonic() + 10.0)
        wait_until(lambda: max(heard, default=0.0) > 0.3, message=lambda: str(heard))
    finally:
        loop.close(1.0)


def test_a_beat_whose_listener_fails_is_followed_by_others() -> None:
    heard: list[float] = []

    def fail(late: float) -> None:
        heard.append(late)
        raise RuntimeError("as told")

    complaints: list[object] = []

    def quiet_loop() -> asyncio.AbstractEventLoop:
        made = asyncio.new_event_loop()
        made.set_exception_handler(lambda _, context: complaints.append(context["exception"]))
        return made

    loop = LoopThread(name="failing", max_in_flight=1, on_beat=fail, loop_factory=quiet_loop)
    loop.start()
    try:
        wait_until(lambda: len(heard) >= 3)
        assert loop.alive()
        assert complaints
    finally:
        loop.close(1.0)
