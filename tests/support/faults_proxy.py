"""NatsProxy: a TCP proxy before a NATS server that sees each event and may strike right before or after it.

It stands between the product and its server so that the product needs no fault points. It passes on what it
reads, event by event and unchanged; what is struck, and when, is the business of the two functions given to it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Final, Self

from tests.support.faults_wire import WireEvent, WireParser

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 65536
_JOIN_SECONDS: Final = 10.0


class Verdict(Enum):
    """What is done with an event."""

    FORWARD = auto()
    STRIKE_INSTEAD = auto()
    """Strike, and neither this event nor anything after it gets through this connection."""
    STRIKE_THEN_FORWARD = auto()
    FORWARD_THEN_STRIKE = auto()
    DROP = auto()
    """This event is lost, everything else goes on: a question that nobody answers."""


class NatsProxy:
    """Listens on a free port; every connection to it gets one of its own to the server at ``port``.

    ``judge`` is called with each event and the client's name (from its CONNECT) before it is forwarded; ``strike``
    with the client's name when the verdict says so, on the thread that holds the event back. With the server away a
    connection is reset, as it would be refused without the proxy.
    """

    def __init__(
        self,
        port: int,
        judge: Callable[[WireEvent, str], Verdict],
        strike: Callable[[str], None],
    ) -> None:
        self._target = (_LOOPBACK, port)
        self._judge = judge
        self._strike = strike
        self._listener = socket.create_server((_LOOPBACK, 0))
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._threads: set[threading.Thread] = set()
        self._closed = False
        self._refusing = False
        self._swallowing = False

    @property
    def url(self) -> str:
        """What the product connects to instead of the server."""
        return f"nats://{_LOOPBACK}:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        """Stop listening and end every connection."""
        with self._lock:
            self._closed = True
            links, threads = list(self._links), list(self._threads)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in links:
            link.cut()
        for thread in threads:
            thread.join(_JOIN_SECONDS)

    def cut(self) -> None:
        """Reset every connection that there is."""
        with self._lock:
            links = list(self._links)
        for link in links:
            _reset_when_closed(link.client)
            link.cut()

    def refuse(self, refusing: bool) -> None:
        """Whether new connections are reset, as where nobody listens."""
        self._refusing = refusing

    def swallow(self, swallowing: bool) -> None:
        """From now on nothing gets through any connection, and none is closed: those that exist now, or are made until
        this is taken back, are dead for good."""
        self._swallowing = swallowing
        with self._lock:
            links = list(self._links)
        for link in links:
            link.dead = True

    def __enter__(self) -> Self:
        self._begin(self._accept, "proxy-accept")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # -- inside -------------------------------------------------------------------------------------

    def _begin(self, work: Callable[[], None], name: str) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(threading.current_thread())

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            if self._closed:
                return
            self._threads.add(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=5.0)
            except OSError:
                _reset(client)
                continue
            server.settimeout(None)
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = _Link(client, server)
            link.dead = self._swallowing
            with self._lock:
                self._links.add(link)
            self._begin(lambda link=link: self._pump(link, from_client=True), "proxy-up")  # type: ignore[misc]
            self._begin(lambda link=link: self._pump(link, from_client=False), "proxy-down")  # type: ignore[misc]

    def _pump(self, link: _Link, *, from_client: bool) -> None:
        source, sink = (link.client, link.server) if from_client else (link.server, link.client)
        parser = WireParser(from_client=from_client)
        try:
            while received := source.recv(_CHUNK):
                for event in parser.feed(received):
                    if not link.dead and not self._pass(link, event, sink):
                        link.cut()
                        return
            if link.dead and not from_client:
                return  # the server gave up first, and even that gets lost
            link.half_close(sink)
        except OSError:
            link.cut()  # one of the two was struck
        finally:
            if link.ended():
                link.cut()
                with self._lock:
                    self._links.discard(link)

    def _pass(self, link: _Link, event: WireEvent, sink: socket.socket) -> bool:
        if event.verb == "CONNECT":
            link.name = json.loads(event.raw.partition(b" ")[2]).get("name") or ""
        verdict = self._judge(event, link.name)
        if verdict in (Verdict.STRIKE_INSTEAD, Verdict.STRIKE_THEN_FORWARD):
            self._strike(link.name)
        if verdict is Verdict.STRIKE_INSTEAD:
            return False
        if verdict is not Verdict.DROP:
            sink.sendall(event.raw)
        if verdict is Verdict.FORWARD_THEN_STRIKE:
            self._strike(link.name)
        return True


class _Link:
    """A client's connection and its server's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.name = ""
        self.dead = False
        self._lock = threading.Lock()
        self._pumping = 2

    def half_close(self, sink: socket.socket) -> None:
        """Tell the other side that nothing more comes. Closing at once could take back what it has not read yet."""
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def ended(self) -> bool:
        """Called by each of the two directions when it ends: True for the second."""
        with self._lock:
            self._pumping -= 1
            return self._pumping == 0

    def cut(self) -> None:
        """End both at once."""
        for one in (self.client, self.server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def _reset_when_closed(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _reset(connection: socket.socket) -> None:
    _reset_when_closed(connection)
    connection.close()
