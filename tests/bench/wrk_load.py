"""One measurement: ``wrk`` for some seconds against one server, and what its workers spent meanwhile."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench.site import Server

LUA: Final = Path(__file__).parent / "wrk"
_UNITS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


class WrkMissing(RuntimeError):
    """There is no wrk here."""

    def __str__(self) -> str:
        return "wrk is not installed; on Debian: apt-get install wrk"


@dataclass(frozen=True)
class Sample:
    """What one run of wrk saw. ``errors``: answers that are neither 2xx nor 3xx, and broken connections."""

    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    errors: int


def measure(
    server: Server,
    script: str,
    *,
    key: str,
    connections: int,
    seconds: float,
    headers: bool = False,
    receipts: Path | None = None,
    given: Mapping[str, str] | None = None,
) -> Sample:
    """Load ``server`` over ``connections`` kept connections. Raises WrkMissing.

    ``receipts``: a folder in which each 2xx's body is kept. ``given``: environment that the script asks for.
    """
    if (wrk := shutil.which("wrk")) is None:
        raise WrkMissing
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "BENCH_LUA": str(LUA),
        "BENCH_KEY": key,
        "BENCH_RUN": f"{time.time_ns():x}",
        "BENCH_NOW": str(time.time_ns() // 1_000_000),
        **({"BENCH_HEADERS": "1"} if headers else {}),
        **({"BENCH_RECEIPTS": str(receipts)} if receipts else {}),
        **(given or {}),
    }
    before = server.cpu_seconds()
    told = subprocess.run(
        [
            *(
                wrk,
                "--threads",
                "1" if connections == 1 else "2",
                "--connections",
                str(connections),
            ),
            *("--duration", f"{seconds:g}s", "--latency", "--script", str(LUA / f"{script}.lua")),
            f"http://127.0.0.1:{server.port}",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 30,
    ).stdout
    spent = server.cpu_seconds() - before
    requests = int(_found(r"(\d+) requests in", told))
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    broken = re.search(
        r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told
    )
    return Sample(
        requests,
        float(_found(r"Requests/sec:\s+([\d.]+)", told)),
        _milliseconds(told, "50%"),
        _milliseconds(told, "99%"),
        spent / requests * 1e6 if requests else 0.0,
        (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0),
    )


def _found(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, text
    return found[1]


def _milliseconds(text: str, quantile: str) -> float:
    found = re.search(rf"{quantile}\s+([\d.]+)(us|ms|s|m)\b", text)
    assert found is not None, text
    return float(found[1]) * _UNITS[found[2]]
