"""The capture: whatever any gateway of the tests logs, counts and records, searched for planted canaries.

It is there in every run of pytest (`telemetry_is_captured`). Each `GatewayProcess` hands over its output and its
metric files when it ends, and sends its spans to a collector of the run unless its test says where they go. A leak
fails the test that meets it, by the name of the test whose gateway it was. A run that had gateways and captured
nothing of them fails as well: then it is the capture that is broken.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Literal, Self, get_args

import pytest

from tests.support.canaries import SECRET, leaks_in

Channel = Literal["logs", "metrics", "spans"]

#: What every access line has, and nothing else of a log.
_ACCESS_LINE: Final = b'"logger":"gateway.access"'


class Capture:
    """What was seen of the gateways of one run. Its collector takes OTLP over HTTP, each gateway on its own path."""

    def __init__(self) -> None:
        self._leaks: list[str] = []
        self._owners: list[str] = []
        self._lock = threading.Lock()
        self.seen: Counter[Channel] = Counter()  # pieces that held anything
        self.ended = 0  # gateways whose end was in order, after they had answered requests
        self._collector = _Collector(self)

    def __enter__(self) -> Self:
        threading.Thread(target=self._collector.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._collector.shutdown()
        self._collector.server_close()

    def exporting(self) -> dict[str, str]:
        """The environment of a gateway of the present test that sends its spans here, with a secret of its own."""
        with self._lock:
            self._owners.append(present_test())
            number = len(self._owners) - 1
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self._collector.server_port}/{number}",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{SECRET}",
        }

    def saw(self, channel: Channel, content: bytes, owner: str) -> None:
        """Search a piece of what a gateway of the test ``owner`` told."""
        found = leaks_in(content)
        with self._lock:
            self.seen[channel] += bool(content)
            self._leaks += [f"{channel} of a gateway of {owner}: …{leak}…" for leak in found]

    def saw_log(self, content: bytes, owner: str, *, in_order: bool) -> None:
        """The same of all that a gateway printed; ``in_order``: it ended so, and its spans were to come here."""
        self.saw("logs", content, owner)
        with self._lock:
            self.ended += in_order and _ACCESS_LINE in content.replace(b": ", b":")

    def saw_metric_files(self, folder: Path, owner: str) -> None:
        """The same of the files that the workers count in. What goes away meanwhile was folded into another."""
        for path in metric_files(folder):
            try:
                content = path.read_bytes().rstrip(b"\0")
            except FileNotFoundError:
                continue
            self.saw("metrics", content, owner)

    def saw_export(self, path: str, body: bytes) -> None:
        """The same of an export that the gateway on this path sent. Texts in protobuf are plain UTF-8."""
        number = path.removeprefix("/").partition("/")[0]
        self.saw("spans", body, self._owners[int(number)] if number.isdigit() else path)

    def take_leaks(self) -> list[str]:
        """The leaks that were found since the last call."""
        with self._lock:
            leaks, self._leaks = self._leaks, []
        return leaks

    def silent(self) -> list[Channel]:
        """The channels that should have told something and have not."""
        with self._lock:
            return [name for name in get_args(Channel) if self.ended and not self.seen[name]]


#: The capture of this run; None outside pytest.
present: Capture | None = None


def present_test() -> str:
    """The test that is at work now."""
    return os.environ.get("PYTEST_CURRENT_TEST", "no test").rpartition(" (")[0] or "no test"


def saw_output(output: str) -> None:
    """What a service of the devstack printed that the present test ran."""
    if present is not None:
        present.saw("logs", output.encode(), present_test())


def saw_devstack(output: str) -> None:
    """The same of the whole devstack: what its parts log. It shows people its demo keys itself, in its greeting."""
    saw_output("\n".join(line for line in output.splitlines() if " │ " in line))


def saw_spans(spans: object) -> None:
    """Spans of the present test that came to a receiver of its own, and not here."""
    if present is not None:
        present.saw("spans", repr(spans).encode(), present_test())


@pytest.fixture(scope="session", autouse=True)
def telemetry_is_captured(process_mark: str) -> Iterator[Capture]:
    """The capture; the run's own gateways have ended before it does."""
    global present  # where gateways are started no fixture is at hand
    with Capture() as capture:
        present = capture
        yield capture
        present = None
        check(capture)
        assert not capture.silent(), (
            f"gateways ended and nothing was captured of: {capture.silent()}"
        )


@pytest.fixture(autouse=True)
def nothing_planted_leaks(telemetry_is_captured: Capture) -> Iterator[None]:
    """Fails a test that meets a planted canary where none may be."""
    yield
    check(telemetry_is_captured)


def check(capture: Capture) -> None:
    """Fail if there are leaks."""
    leaks = capture.take_leaks()
    assert not leaks, "planted canaries leaked:\n" + "\n".join(leaks[:20])


class _Collector(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # its clients keep their connections for as long as they live
    request_queue_size = 128

    def __init__(self, capture: Capture) -> None:
        super().__init__(("127.0.0.1", 0), _Exports)
        self.capture: Final = capture

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A gateway that was killed; nothing to tell."""


class _Exports(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.capture.saw_export(self.path, body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the tests' own output."""


def metric_files(folder: Path) -> list[Path]:
    """The files that workers count in, at any depth. Unlike `Path.rglob` it minds no folder that goes meanwhile."""
    return sorted(
        Path(parent, name)
        for parent, _, names in os.walk(folder)
        for name in names
        if name.endswith(".db")
    )
