"""Prometheus: the real one, with the delivered configuration and rules, in a world where a minute lasts a second.

Every duration of the configuration and of the rules is divided by `HURRY`; nothing else is changed but the targets.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from typing import Any, Final

from tests.support.deploy_program import DebianProgram
from tests.support.gateway_process import REPOSITORY
from tests.support.http_client import Client

PROMETHEUS: Final = "/usr/bin/prometheus"
DELIVERED: Final = REPOSITORY / "deploy" / "prometheus"
HURRY: Final = 60
_DURATION: Final = re.compile(r"(?<=\[|\s)(\d+)([smh])(?=\]|$)", re.MULTILINE)
_MILLISECONDS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000}


class Prometheus(DebianProgram):
    """One Prometheus that scrapes ``targets`` (``host:port``), ended with the test."""

    name = "prometheus"
    probe = ("/-/ready", 200)

    def __init__(self, targets: Sequence[str]) -> None:
        super().__init__()
        (self.folder / "rules").mkdir()
        for path in (DELIVERED / "rules").glob("*.yml"):
            (self.folder / "rules" / path.name).write_text(hurried(path.read_text()))
        text = hurried((DELIVERED / "prometheus.yml").read_text())
        wanted = "".join(f"          - {target}\n" for target in targets)
        text, count = re.subn(r"( {10}- gateway-[ab]:8080\n)+", wanted, text)
        assert count == 1, "the delivered configuration names other targets"
        (self.folder / "prometheus.yml").write_text(text)

    def get(self, path: str, **query: str) -> Any:
        """The ``data`` of an answer of the API."""
        with Client(self.host, self.port, headers={}) as client:
            answer = client.get(f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
        assert answer.status == 200, answer
        return answer.json()["data"]

    def value(self, expression: str) -> float | None:
        """The one value of an expression now; None: it has none."""
        result = self.get("query", query=expression)["result"]
        assert len(result) <= 1, result
        return float(result[0]["value"][1]) if result else None

    def alerts(self, state: str = "firing") -> set[str]:
        """Names of the alerts in this state."""
        found = self.get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in found if alert["state"] == state}

    def command(self) -> Sequence[str]:
        """See `DebianProgram`."""
        return (
            PROMETHEUS,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={self._port.address}",
        )


def hurried(text: str) -> str:
    """A configuration or rules with every duration divided by `HURRY`."""

    def shorter(found: re.Match[str]) -> str:
        return f"{int(found[1]) * _MILLISECONDS[found[2]] // HURRY}ms"

    return _DURATION.sub(shorter, text)
