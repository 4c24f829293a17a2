"""The operator's command line: ``beamline-gateway dlq …`` and ``streams`` as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
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
    *arguments: str, nats_url: str, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run it to its end, as an operator does: the address of NATS, and no setting of a serving gateway."""
    ended = subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(REPOSITORY),
            "NATS_URL": nats_url,
            **(environment or {}),
        },
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)
