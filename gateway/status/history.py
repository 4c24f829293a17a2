"""History: the last five minutes of an instance, step by step, and outcomes that nobody knows.

Prometheus keeps what was; a page that a person opens in the middle of an outage must show it without one. Each worker
notes every five seconds what it has counted so far, keeps the last minutes of that, and leaves them in a file for the
others; whoever is asked adds up what all workers left. A worker that is gone is part of it until its last note is too
old. Nothing of it is on the way of a request.

**When the files cannot be written or read**, a worker tells of itself only.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from cachetools import LRUCache

from gateway import json
from gateway.context import RequestContext
from gateway.status.figures import of_this_process
from gateway.telemetry.metrics.files import of_this_worker

STEP_SECONDS: Final = 5
STEPS: Final = 60
_TENANTS: Final = 50
_UNKNOWN_A_TENANT: Final = 10
"""Kept apart by tenant, so that one tenant's trouble does not push another's out of sight."""
_FILES: Final = "status-*.json"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UnknownOutcome:
    """A request whose effect was sent and not acknowledged: when (seconds since 1970), whose, and how to find it.

    ``times``: how many effects, of a batch.
    """

    at: float
    tenant: str
    operation: str
    request_id: str
    trace_id: str
    times: int = 1


@dataclass(frozen=True, slots=True)
class Past:
    """What all workers noted. ``steps``: what was counted in each step, oldest first; the last one goes on."""

    steps: tuple[Mapping[str, float], ...]
    unknown: tuple[UnknownOutcome, ...]

    def last(self, seconds: int) -> Mapping[str, float]:
        """What was counted in the last so many seconds."""
        sums: Counter[str] = Counter()
        for step in self.steps[-(seconds // STEP_SECONDS) :]:
            sums.update(step)
        return sums


class History:
    """One in each worker; `note` runs every step from `start` to `close`, on a thread of its own."""

    def __init__(self) -> None:
        # The first note is what is compared with: a worker begins with nothing counted.
        self._notes: deque[tuple[int, dict[str, float]]] = deque([(step_now() - 1, {})], STEPS + 1)
        self._unknown: LRUCache[str, deque[UnknownOutcome]] = LRUCache(_TENANTS)
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="status-history", daemon=True)
        self._said = False

    def start(self) -> None:
        """Begin to note. After the fork."""
        self._thread.start()

    def close(self) -> None:
        """Note a last time."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(1.0)
        self.note()

    def unknown(self, context: RequestContext, operation: str, times: int = 1) -> None:
        """Remember that nobody knows what became of a request's effect."""
        outcome = UnknownOutcome(
            time.time(), context.tenant, operation, context.request_id, context.trace_id, times
        )
        with self._lock:
            ours = self._unknown.setdefault(context.tenant, deque(maxlen=_UNKNOWN_A_TENANT))
            ours.append(outcome)

    def note(self) -> None:
        """Note what is counted now, for the others too. Never raises OSError."""
        counted = of_this_process()
        with self._lock:
            # A note made at the beginning of a step tells of the step that has just ended.
            self._notes.append((step_now(ago_seconds=STEP_SECONDS / 2), counted))
        files = of_this_worker()
        if files is None:
            return
        try:
            _write(files.root, self._as_json())
            self._said = False
        except OSError as error:
            if not self._said:  # once: as long as it lasts, every step would say it
                self._said = True
                _log.warning("the status page lacks this worker's history: %s", error)

    def past(self) -> Past:
        """The last minutes of all workers of this instance."""
        with self._lock:
            own = self._as_told()
        own["notes"].append((step_now(), of_this_process()))
        files = of_this_worker()
        told = [own, *(() if files is None else _others(files.root))]
        unknown = [UnknownOutcome(**outcome) for worker in told for outcome in worker["unknown"]]
        return Past(
            steps=steps_of([worker["notes"] for worker in told]),
            unknown=tuple(sorted(unknown, key=lambda outcome: outcome.at, reverse=True)),
        )

    def _run(self) -> None:
        while not self._over.wait(STEP_SECONDS - time.monotonic() % STEP_SECONDS):
            try:
                self.note()
            except Exception:  # without the thread nothing would be noted any more
                _log.exception("history could not be noted")

    def _as_told(self) -> dict[str, Any]:
        outcomes = [asdict(one) for ours in self._unknown.values() for one in ours]
        return {"notes": list(self._notes), "unknown": outcomes}

    def _as_json(self) -> bytes:
        with self._lock:
            return json.dumps(self._as_told())


def step_now(ago_seconds: float = 0.0) -> int:
    # Of the machine's monotonic clock, which is the same for all workers.
    return int((time.monotonic() - ago_seconds) // STEP_SECONDS)


def steps_of(
    workers: Iterable[Iterable[tuple[int, Mapping[str, float]]]],
) -> tuple[Mapping[str, float], ...]:
    """What was counted in each of the last steps, over all workers: the differences between their notes."""
    now = step_now()
    sums: list[Counter[str]] = [Counter() for _ in range(STEPS)]
    for notes in workers:
        before: Mapping[str, float] | None = None
        for step, counted in notes:
            index = step - now - 1  # the present one is the last
            if before is not None and -STEPS <= index < 0:
                sums[index].update(
                    {name: value - before.get(name, 0.0) for name, value in counted.items()}
                )
            before = counted
    return tuple(sums)


def _write(folder: Path, content: bytes) -> None:
    path = folder / f"status-{os.getpid()}.json"
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
    oldest = time.time() - (STEPS + 1) * STEP_SECONDS
    for other in folder.glob(_FILES):
        with contextlib.suppress(FileNotFoundError):  # another worker was faster
            if other.stat().st_mtime < oldest:
                other.unlink()


def _others(folder: Path) -> Iterable[dict[str, Any]]:
    own = f"status-{os.getpid()}.json"
    for path in folder.glob(_FILES):
        if path.name != own:
            with contextlib.suppress(OSError, json.Unreadable):
                yield json.loads(path.read_bytes())
