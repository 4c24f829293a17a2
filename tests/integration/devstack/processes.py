"""The devstack's Router and worker as processes, as the stack starts them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.nats_server import NatsServer
from tests.support import capture
from tests.support.waiting import wait_until

REPOSITORY: Final = Path(__file__).resolve().parents[3]


def environment(**variables: str) -> dict[str, str]:
    """This process's environment, with the repository importable and ``variables`` over it."""
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **variables}


class ServiceProcess:
    """``python -m gateway.devstack.<name>`` against ``server``."""

    def __init__(
        self,
        name: str,
        server: NatsServer,
        folder: Path,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.output_path = folder / f"{name}.log"
        self._environment = environment(NATS_URL=server.url, **(variables or {}))
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def start(self) -> None:
        with self.output_path.open("ab") as output:
            self._child = child_process.spawn(
                [sys.executable, "-m", f"gateway.devstack.{self.name}"],
                stdout=output,
                env=self._environment,
            )

    def terminate(self) -> bool:
        """SIGTERM; True if it ended by itself within five seconds."""
        assert self._child is not None
        return child_process.terminate(self._child, timeout=5.0)

    def kill(self) -> None:
        assert self._child is not None
        child_process.kill(self._child)

    def exit_status(self) -> int | None:
        assert self._child is not None
        return self._child.poll()

    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    def wait_for_output(self, text: str) -> None:
        wait_until(
            lambda: text in self.output(),
            message=lambda: f"{self.name} never said {text!r}:\n{self.output()}",
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.terminate()
        capture.saw_output(self.output())
