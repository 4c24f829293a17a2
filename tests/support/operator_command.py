"""The operator's command line: ``beamline-gateway apikeys …``, ``dlq …`` and the others as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.support.gateway_process import REPOSITORY

_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Ended:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    def lines(self) -> list[dict[str, Any]]:
        """Its output as one JSON object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


def beamline_gateway(
    *arguments: str,
    nats_url: str = "",
    environment: Mapping[str, str] | None = None,
    prefix: Sequence[str] = (),
) -> Ended:
    """Run it to its end, as an operator does: the address of NATS, and no setting of a serving gateway.

    In a folder of its own, which is gone afterwards, so that what it writes by default is. ``prefix`` is a program
    that runs it.
    """
    with tempfile.TemporaryDirectory(prefix="operator-") as folder:
        ended = subprocess.run(
            [*prefix, *command_line(*arguments)],
            env=operator_environment(nats_url, environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def command_line(*arguments: str) -> list[str]:
    """For tests that start the process themselves."""
    return [sys.executable, "-m", "gateway.cli", *arguments]


def operator_environment(
    nats_url: str = "", environment: Mapping[str, str] | None = None
) -> dict[str, str]:
    """What an operator's shell holds."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "NATS_URL": nats_url,
        **(environment or {}),
    }
