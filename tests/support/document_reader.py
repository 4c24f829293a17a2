"""Reader: somebody who pastes what the documents show into a shell, with addresses of their own in place of those."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from tests.support.gateway_process import REPOSITORY
from tests.support.leaks import MARK_VARIABLE

_SECONDS: Final = 90.0
# What is started in the background ends with the shell, as it would with a terminal.
_SHELL: Final = """set -eo pipefail
trap 'kill $(jobs -p) 2>/dev/null || :; wait' EXIT
"""
# The gateway of a reader is at the address that the documents show; that of a test is not, and `smoke` has a default.
_COMMAND: Final = """#!/bin/sh
if [ "$1" = smoke ]; then shift; set -- smoke --url "$READERS_GATEWAY" "$@"; fi
exec {python} -m gateway.cli "$@"
"""


@dataclass(frozen=True)
class Reader:
    """``folder`` is where the shell is; ``url`` the gateway. ``environment`` is what the shell holds; ``own`` is what
    the reader writes in place of what is shown, the longest first."""

    folder: Path
    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, str] = field(default_factory=dict)

    def having(self, url: str = "", **environment: str) -> Reader:
        """The same with another gateway or more in the environment."""
        held = {**self.environment, **environment}
        return replace(self, url=url or self.url, environment=held)

    def written(self, text: str) -> str:
        """The text with the reader's own addresses, keys and files."""
        for shown in sorted(self.own, key=len, reverse=True):
            text = text.replace(shown, self.own[shown])
        return text

    def paste(self, text: str) -> subprocess.CompletedProcess[str]:
        """Carry it out. The exit code is that of the first command that fails."""
        shell = subprocess.Popen(
            ["bash", "-c", _SHELL + self.written(text)],
            env=self._environment(),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = shell.communicate(timeout=_SECONDS)
        except BaseException:
            os.killpg(shell.pid, signal.SIGKILL)  # and what it has started
            raise
        return subprocess.CompletedProcess(text, shell.returncode, out, err)

    def _environment(self) -> dict[str, str]:
        commands = self.folder / "bin"
        commands.mkdir(exist_ok=True)
        command = commands / "beamline-gateway"
        if not command.exists():
            command.write_text(_COMMAND.format(python=sys.executable))
            command.chmod(0o755)
        return {
            "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONUNBUFFERED": "1",
            MARK_VARIABLE: os.environ.get(MARK_VARIABLE, ""),
            "READERS_GATEWAY": self.url,
            **self.environment,
        }
