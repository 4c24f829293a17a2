"""What `make run` starts, as a process in a folder of its own: for tests that paste what the documents print."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.devstack.ports import PortReservation
from tests.support import capture
from tests.support.gateway_process import REPOSITORY
from tests.support.waiting import wait_until

_READY_SECONDS = 60


@dataclass(frozen=True)
class Started:
    """Where the gateway is, and the folder that readers are in."""

    url: str
    folder: Path

    @property
    def key(self) -> str:
        """The demo key."""
        return (self.folder / ".devstack" / "demo.key").read_text().strip()

    @property
    def admin(self) -> str:
        """The key that it prints for an administrator of the demo tenant."""
        return self._said(r"(blk_\S+)  admin of ")

    @property
    def operators(self) -> dict[str, str]:
        """The environment that it tells operators to have."""
        return dict(pair.split("=", 1) for pair in shlex.split(self._said(r"export (NATS_URL=.*)")))

    def _said(self, pattern: str) -> str:
        found = re.search(pattern, (self.folder / "log").read_text())
        assert found is not None, f"it did not say {pattern}"
        return found[1]


@contextlib.contextmanager
def running_devstack(
    folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Started]:
    """Start it and wait until it says that it is ready; end it in order. ``environment``: settings of the gateway."""
    log = folder / "log"
    with PortReservation() as port, log.open("wb") as output:
        bind = port.address
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway.cli", "dev", "--bind", bind],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**_environment(), **(environment or {}), "PYTHONPATH": str(REPOSITORY)},
        )
        try:
            wait_until(
                lambda: "is ready at" in log.read_text() or process.poll() is not None,
                _READY_SECONDS,
                lambda: log.read_text(),
            )
            assert process.poll() is None, log.read_text()
            yield Started(f"http://{bind}", folder)
        finally:
            process.terminate()
            ended = process.wait(30)
            capture.saw_devstack(log.read_text())
            assert ended == 0, log.read_text()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "GATEWAY_BIND"}
