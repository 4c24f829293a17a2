"""Sources: where keys, roles and signing keys are looked up, and the one error for "it cannot be told now".

Nothing here is cached beyond what a file's own state says; `gateway.access.cache` stands in front.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from bridge import Bridge, BridgeError, Bus, Entry

T = TypeVar("T")
LOOKUP_SECONDS: Final = 2.0
"""What one lookup may take, whatever is left to the request that caused it."""
_SETTLED_NS: Final = 2_000_000_000
"""A file written less than this ago may be written again within the same tick of its clock, and look the same."""


class SourceUnavailable(Exception):
    """It cannot be told who is calling or what they may do; the text says why and holds no credential."""


class WatchedFile(Generic[T]):
    """A file's content, parsed again when the file has changed. Safe from any thread.

    ``parse`` raises ValueError for what it does not understand.
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T]) -> None:
        self._path = path
        self._parse = parse
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._content: T | None = None

    def read(self) -> T:
        """The content as it is now. Raises SourceUnavailable; what was read before is no answer then."""
        with self._lock:
            try:
                with self._path.open("rb") as file:
                    state = os.fstat(file.fileno())
                    times = (state.st_mtime_ns, state.st_ctime_ns)
                    seen = (state.st_dev, state.st_ino, state.st_size, *times)
                    if self._content is None or seen != self._seen:
                        self._content = self._seen = None
                        self._content = self._parse(file.read())
                        if time.time_ns() - max(times) > _SETTLED_NS:
                            self._seen = seen
            except (OSError, ValueError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise SourceUnavailable(f"{self._path.name}: {why}") from None
            return self._content


def read_entry(bridge: Bridge, bucket: str, key: str) -> Entry | None:
    """A key's value in a bucket, through its leader. Raises SourceUnavailable."""

    async def look(bus: Bus) -> Entry | None:
        return await bus.bucket(bucket).get(key, deadline=deadline)

    deadline = time.monotonic() + LOOKUP_SECONDS
    try:
        return bridge.run(look, deadline)
    except BridgeError as error:
        raise SourceUnavailable(f"{bucket}: {error}") from error
