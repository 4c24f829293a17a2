"""A process that counts as a gateway's worker does: so often as it is told, into files of its own.

``python -m tests.support.metric_worker <folder of the run> <age>``; a line with a number on its input is that many
counts, and is repeated on its output when they are done.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.telemetry.metrics.files import MetricFiles
from tests.support.gateway_process import REPOSITORY

COUNTER: Final = "counted_total"
HISTOGRAM: Final = "took_seconds"
GAUGE: Final = "busy"
OBSERVED_SECONDS: Final = 0.25


class MetricWorker:
    """The process, from the outside."""

    def __init__(self, files: MetricFiles, age: int) -> None:
        # Its input ends with us, and it with its input.
        self._child = subprocess.Popen(
            [sys.executable, "-m", __name__, str(files.root), str(age)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert self._said() == "ready"

    def count(self, times: int) -> None:
        """Returns when it has."""
        assert self._child.stdin is not None
        self._child.stdin.write(f"{times}\n".encode())
        self._child.stdin.flush()
        assert self._said() == str(times)

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self._child.kill()
        with self._child:  # closes its pipes, waits for it
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()

    def _said(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline().decode().strip()


def main(root: Path, age: int) -> None:
    """Count until the input ends."""
    MetricFiles(root).adopt(age)
    from prometheus_client import Counter, Gauge, Histogram

    counter = Counter(COUNTER, "Counts.", ["who"]).labels("worker")
    histogram = Histogram(HISTOGRAM, "Times.", buckets=(0.1, 1.0))
    busy = Gauge(GAUGE, "Now.", multiprocess_mode="livesum")
    busy.set(1)
    print("ready", flush=True)
    for line in sys.stdin:
        for _ in range(int(line)):
            counter.inc()
            histogram.observe(OBSERVED_SECONDS)
        print(line.strip(), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
