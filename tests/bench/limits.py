"""What NATS itself gives one process: bare request-reply and JetStream publish with nats-py, so many at once."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable

import nats
import uvloop

from tests.bench.wrk_load import Sample


def bare(url: str, what: str, *, at_once: int, seconds: float) -> Sample:
    """``request`` or ``publish``, repeated by ``at_once`` tasks for ``seconds``."""
    return uvloop.run(_bare(url, what, at_once, seconds))


async def _bare(url: str, what: str, at_once: int, seconds: float) -> Sample:
    client = await nats.connect(url)
    js = client.jetstream()
    await js.add_stream(name="BENCH_BARE", subjects=["bench.bare"], max_bytes=1 << 30)
    run = f"{time.time_ns():x}"
    body = b'{"task":{"type":"chat","payload":{"text":"hello there"}}}'
    number = 0

    async def request() -> None:
        await client.request("beamline.router.v1.decide", body, timeout=5)

    async def publish() -> None:
        nonlocal number
        number += 1
        await js.publish("bench.bare", body, headers={"Nats-Msg-Id": f"{run}-{number}"})

    once: Callable[[], Awaitable[None]] = {"request": request, "publish": publish}[what]
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def work() -> None:
        while (begun := time.perf_counter()) < end:
            await once()
            latencies.append(time.perf_counter() - begun)

    spent = os.times()
    await asyncio.gather(*(work() for _ in range(at_once)))
    now = os.times()
    await client.close()
    latencies.sort()
    count = len(latencies)
    cpu = now.user + now.system - spent.user - spent.system
    return Sample(
        count,
        count / seconds,
        latencies[count // 2] * 1e3,
        latencies[count * 99 // 100] * 1e3,
        cpu / count * 1e6,
        0,
    )
