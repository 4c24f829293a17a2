"""A process that takes a message of a durable consumer, never settles it, and waits to be killed."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from types import TracebackType
from typing import Self

from bridge import Bridge, BridgeConfig, Bus, ConsumerSpec, Delivery


class HangingConsumer:
    """The process; use it as a context manager."""

    def __init__(self, url: str, spec: ConsumerSpec) -> None:
        self._command = [sys.executable, "-m", __name__, url, json.dumps(asdict(spec))]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def wait_taken(self) -> float:
        """Wait until it has the message in hand; the time then (monotonic seconds)."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"taken\n", "it ended before it took a message"
        return time.monotonic()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.communicate(timeout=10)


def _main(url: str, spec: ConsumerSpec) -> None:
    async def take(_: Delivery) -> None:
        print("taken", flush=True)
        await asyncio.Event().wait()

    async def service(bus: Bus) -> None:
        await bus.consume(spec, take)

    Bridge(BridgeConfig(servers=(url,)), services=[service]).start()
    sys.stdin.read()  # ends with the test's process, should that forget to kill it


if __name__ == "__main__":
    _main(sys.argv[1], ConsumerSpec(**json.loads(sys.argv[2])))
