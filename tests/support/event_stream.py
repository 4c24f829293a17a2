"""EventStream: a client of server-sent events, as a browser's EventSource is one, without its reconnects."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlencode

from tests.support.http_client import ADMIN
from tests.support.result_messages import RESULTS
from tests.support.waiting import GENEROUS_SECONDS, wait_until


class Listener(Protocol):
    """Whatever answers there: a gateway, or a proxy in front of it."""

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


@dataclass(frozen=True)
class Event:
    """One event. ``at`` is when it was read, on the monotonic clock."""

    name: str
    data: str
    at: float = field(compare=False)

    def json(self) -> Any:
        return json.loads(self.data)


class EventStream:
    """An open stream of results: ``EventStream(gateway, assignment_id=…, heartbeat_ms=200)``.

    A thread of its own reads; what it read is in ``events``. `vanish` is a client that is gone without a word.
    """

    def __init__(
        self, gateway: Listener, headers: Mapping[str, str] = ADMIN, /, **query: object
    ) -> None:
        self._connection = http.client.HTTPConnection(gateway.host, gateway.port, timeout=60.0)
        self._connection.request(
            "GET", f"{RESULTS}/stream?{urlencode(query)}", headers=dict(headers)
        )
        # http.client lets go of a connection that will be closed; the socket is needed for leaving early.
        self._socket: socket.socket = self._connection.sock
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self.headers = {name.lower(): value for name, value in self._response.getheaders()}
        self.events: list[Event] = []
        self.comments: list[str] = []
        self.opened_at = time.monotonic()
        self.ended_at: float | None = None
        self.complete = False
        """Whether the server said that this was the end; False for a connection that broke."""
        self.body = b""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            self._thread = threading.Thread(target=self._read, name="event-stream", daemon=True)
            self._thread.start()
        else:
            self.body = self._response.read()
            self.ended_at = time.monotonic()

    @property
    def ended(self) -> bool:
        return self.ended_at is not None

    def results(self) -> list[dict[str, Any]]:
        """The results told so far."""
        return [event.json() for event in list(self.events) if event.name == "result"]

    def heartbeats(self) -> list[Event]:
        return [event for event in list(self.events) if event.name == "heartbeat"]

    def wait_for_results(
        self, count: int, timeout: float = GENEROUS_SECONDS
    ) -> list[dict[str, Any]]:
        """Wait for at least ``count`` results."""
        return wait_until(
            lambda: found if len(found := self.results()) >= count else [],
            timeout,
            lambda: f"not {count} results: {self.status} {self.events} (ended: {self.ended})",
        )

    def wait_for_heartbeats(self, count: int, timeout: float = GENEROUS_SECONDS) -> list[Event]:
        """Wait for at least ``count`` heartbeats from now on."""
        before = len(self.heartbeats())
        return wait_until(
            lambda: found if len(found := self.heartbeats()[before:]) >= count else [],
            timeout,
            lambda: f"not {count} heartbeats: {self.events} (ended: {self.ended})",
        )

    def wait_until_ended(self, timeout: float = GENEROUS_SECONDS) -> float:
        """Wait for the server's end of the stream; seconds since its opening."""
        wait_until(lambda: self.ended, timeout, lambda: f"still open: {self.events}")
        assert self.ended_at is not None
        return self.ended_at - self.opened_at

    def vanish(self) -> None:
        """Be gone, as a client that crashed: its machine closes the socket."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.vanish()

    def _read(self) -> None:
        name, data = "message", list[str]()
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError, AttributeError):
            while raw := self._response.readline():
                line = raw.decode().rstrip("\r\n")
                key, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if not line:
                    if data:
                        self.events.append(Event(name, "\n".join(data), time.monotonic()))
                    name, data = "message", []
                elif not key:
                    self.comments.append(value)
                elif key == "event":
                    name = value
                elif key == "data":
                    data.append(value)
            # http.client raises IncompleteRead for a chunk that is missing, unless it is the last one.
            self.complete = self._response.isclosed()
        self.ended_at = time.monotonic()
