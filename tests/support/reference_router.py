"""The devstack's strict reference Router, as a process of its own, as ``beamline-gateway dev`` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gateway.devstack import child_process
from gateway.devstack.child_process import Child
from gateway.devstack.nats_server import NatsServer
from tests.support import capture
from tests.support.gateway_process import REPOSITORY
from tests.support.scripted_router import DECIDE_SUBJECT
from tests.support.waiting import wait_until


class ReferenceRouter:
    """``python -m gateway.devstack.router``; started when somebody listens on the decide subject."""

    def __init__(self, server: NatsServer, environment: Mapping[str, str] | None = None) -> None:
        self._server = server
        self._environment = dict(environment or {})
        self._folder = tempfile.TemporaryDirectory(prefix="reference-router-")
        self.output_path = Path(self._folder.name) / "output.log"
        self._child: Child | None = None

    def start(self) -> None:
        environment = {
            **os.environ,
            "NATS_URL": self._server.url,
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            **self._environment,
        }
        with self.output_path.open("ab") as output:
            self._child = child_process.spawn(
                [sys.executable, "-m", "gateway.devstack.router"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=Path(self._folder.name),
            )
        child = self._child

        def listening() -> bool:
            assert child.poll() is None, f"the reference Router ended:\n{self.output()}"
            return has_listener(self._server, DECIDE_SUBJECT)

        wait_until(listening, message=lambda: f"no Router listens:\n{self.output()}")

    def close(self) -> None:
        if self._child is not None:
            child_process.terminate(self._child, timeout=5.0)
            capture.saw_output(self.output())
        self._folder.cleanup()

    def output(self) -> str:
        return self.output_path.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def has_listener(server: NatsServer, subject: str) -> bool:
    """Whether any connection subscribes to exactly this subject."""
    connections: list[dict[str, Any]] = server.connz()["connections"]
    return any(subject in (one.get("subscriptions_list") or ()) for one in connections)
