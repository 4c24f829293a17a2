"""The smoke command in this process, against servers of the test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from gateway.cli import main

#: Enough for a server in the same process; what is expected to fail waits no longer.
WAIT = ("--timeout", "5", "--wait", "1")
CREDENTIALS = {"BEAMLINE_KEY": "key-of-one-tenant", "BEAMLINE_TENANT_KEY": "key-of-another-tenant"}


@dataclass(frozen=True)
class Ended:
    """How the command ended, and its JSON object."""

    code: int
    document: Mapping[str, Any]

    @property
    def failures(self) -> list[str]:
        """The names of what was found, in order."""
        return [check["failure"] for check in self.document["checks"] if check["failure"]]

    def message(self, check: str) -> str:
        [found] = [each for each in self.document["checks"] if each["check"] == check]
        message: str = found["message"]
        return message

    def outcome(self, check: str) -> str:
        [found] = [each for each in self.document["checks"] if each["check"] == check]
        outcome: str = found["outcome"]
        return outcome


Smoke = Callable[..., Ended]


@pytest.fixture
def smoke(monkeypatch: pytest.MonkeyPatch) -> Smoke:
    """Run it with these arguments and this environment beside the credentials of two tenants."""
    for name in ("NATS_URL", "OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, **environment: str | None) -> Ended:
        result = CliRunner().invoke(
            main, ["smoke", *WAIT, *arguments, "--json"], env={**CREDENTIALS, **environment}
        )
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return Ended(result.exit_code, json.loads(result.stdout))

    return run
