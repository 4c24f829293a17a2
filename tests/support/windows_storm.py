"""A storm of kills over counted windows: workers that count are killed with SIGKILL at any moment and replaced.

Run as a program, which forks its workers as gunicorn's master does::

    python -m tests.support.windows_storm <folder> <limit> <kills>

Each worker counts on several threads, and writes a byte into a file of its own for each request that it was allowed,
after it was. When the kills are done, the living ones go on until they are refused. Prints what was seen as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

from gateway.windows import Windows

WORKERS: Final = 3
THREADS: Final = 2
_WINDOW_MS: Final = 3_600_000
_PROGRESS: Final = 100
"""How many requests a victim has been allowed, at least, when it is killed: it is at full speed."""
_BOUND_SECONDS: Final = 120.0


def _count(windows: Windows, limit: int, seen: int, master: int) -> None:
    while os.getppid() == master and windows.take("key", limit).allowed:
        os.write(seen, b".")


def _worker(file: Path, limit: int, seen: Path) -> None:
    master = os.getppid()
    windows = Windows(file, _WINDOW_MS)
    descriptor = os.open(seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    arguments = (windows, limit, descriptor, master)
    threads = [threading.Thread(target=_count, args=arguments) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    windows.close()


class _Storm:
    def __init__(self, folder: Path, limit: int) -> None:
        self.file = folder / "limits.sqlite"
        self.limit = limit
        self.folder = folder
        self.started = 0
        self.living: dict[int, Path] = {}

    def start(self) -> None:
        self.started += 1
        seen = self.folder / f"seen-{self.started}"
        seen.touch()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                _worker(self.file, self.limit, seen)
                status = 0
            finally:
                os._exit(status)
        self.living[pid] = seen

    def kill_one(self, chance: random.Random) -> None:
        pid, seen = chance.choice(list(self.living.items()))
        end = time.monotonic() + _BOUND_SECONDS
        while seen.stat().st_size < _PROGRESS:
            if time.monotonic() > end:
                sys.exit("a worker counts nothing")
            time.sleep(0.001)
        time.sleep(chance.random() / 1000)  # anywhere in a check, which takes some 20 µs
        os.kill(pid, signal.SIGKILL)
        if os.waitpid(pid, 0)[1] != signal.SIGKILL:
            sys.exit("a worker ended before it was killed: the limit is too small")
        del self.living[pid]

    def allowed(self) -> int:
        return sum(path.stat().st_size for path in self.folder.glob("seen-*"))


def main(folder: str, limit: str, kills: str) -> None:
    """See the module's docstring."""
    storm = _Storm(Path(folder), int(limit))
    chance = random.Random()
    for _ in range(WORKERS):
        storm.start()
    for _ in range(int(kills)):
        storm.kill_one(chance)
        storm.start()
    before_the_end = storm.allowed()
    failed = sum(os.waitpid(pid, 0)[1] != 0 for pid in storm.living)
    report = {"allowed": storm.allowed(), "before_the_end": before_the_end, "failed": failed}
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
