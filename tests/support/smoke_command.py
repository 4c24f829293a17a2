"""``beamline-gateway smoke`` as a process, against gateways that are real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.gateway_process import REPOSITORY
from tests.support.leaks import MARK_VARIABLE

_SECONDS: Final = 120.0

#: Two tenants, as an authenticating proxy names them.
TENANTS: Final = (
    "--header", "X-Tenant-ID: smoke-one", "--header", "X-Role: admin", "--tenant-header", "X-Tenant-ID: smoke-two",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How it ended; ``document`` is its JSON object."""

    code: int
    document: Mapping[str, Any]
    errors: str

    @property
    def failures(self) -> list[str]:
        """The names of what was found, in order."""
        return [check["failure"] for check in self.document["checks"] if check["failure"]]

    @property
    def outcomes(self) -> dict[str, str]:
        """Check → passed, failed or not_checked."""
        return {check["check"]: check["outcome"] for check in self.document["checks"]}

    def message(self, check: str) -> str:
        """What a check said."""
        [found] = [each for each in self.document["checks"] if each["check"] == check]
        message: str = found["message"]
        return message


def smoke_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What an operator's shell holds, and nothing of the developer's settings."""
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONUNBUFFERED": "1",
        MARK_VARIABLE: os.environ.get(MARK_VARIABLE, ""),
        **environment,
    }


def smoke(*arguments: str, cwd: Path | None = None, **environment: str) -> Ended:
    """Run it to its end. Fails if it says anything but its JSON object."""
    ended = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "smoke", "--json", *arguments],
        env=smoke_environment(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    try:
        return Ended(ended.returncode, json.loads(ended.stdout), ended.stderr)
    except ValueError:
        raise AssertionError(
            f"no JSON object ({ended.returncode}):\n{ended.stdout}{ended.stderr}"
        ) from None
