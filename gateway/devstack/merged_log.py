"""One readable log of several processes: each line as it comes, behind the name of its process."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Iterator
from typing import Final, TextIO

_COLOURS: Final = (36, 33, 32, 35, 34)
_NAME_WIDTH: Final = 7


class MergedLog:
    """Writes lines of any number of processes to ``out``, never mixed within a line.

    When ``out`` is gone (a closed pipe) the processes are still read, so that none of them blocks, and
    `broken` is True.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._coloured = out.isatty() and "NO_COLOR" not in os.environ
        self._readers: list[threading.Thread] = []
        self.broken = False

    @contextlib.contextmanager
    def channel(self, name: str, *, noise: re.Pattern[str] | None = None) -> Iterator[int]:
        """A descriptor to start the process ``name`` with as its output; our own copy is closed after.

        Lines are read until the last process that holds the descriptor ends; those in which ``noise`` is
        found are left out.
        """
        read_end, write_end = os.pipe()
        colour = _COLOURS[len(self._readers) % len(_COLOURS)]
        prefix = f"{name:<{_NAME_WIDTH}} │ "
        if self._coloured:
            prefix = f"\x1b[{colour}m{prefix}\x1b[0m"
        reader = threading.Thread(
            target=self._copy, args=(read_end, prefix, noise), name=f"log-{name}", daemon=True
        )
        reader.start()
        self._readers.append(reader)
        try:
            yield write_end
        finally:
            os.close(write_end)

    def say(self, text: str) -> None:
        """Write lines of our own."""
        try:
            with self._lock:
                self._out.write(text + "\n")
                self._out.flush()
        except (OSError, ValueError):
            self.broken = True

    def finish(self, timeout: float) -> None:
        """Wait until everything that ended processes said is written, at most ``timeout`` seconds."""
        end = time.monotonic() + timeout
        for reader in self._readers:
            reader.join(max(0.0, end - time.monotonic()))

    def _copy(self, read_end: int, prefix: str, noise: re.Pattern[str] | None) -> None:
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if noise is not None and noise.search(line):
                    continue
                self.say(prefix + line.rstrip("\n"))
