"""The worker of gunicorn as the gateway needs it: what gunicorn refuses itself is answered, counted and logged alike.

A request line that is none, headers that are too large, a chunk without a size: gunicorn answers these before there is
a request that the application could see, with a page of HTML that repeats what was sent and a warning that holds it,
credentials included. Here they get the contract's error body, a request id to be found by, and an access line.

Clients that are slow or silent hold no thread: a connection waits for its first byte without one, a request has a
bounded time to arrive (`gateway.arrival`), what is left of a refused one is not waited for.

And it does with fewer hand-overs, each of which wakes a thread or a client. gunicorn gives a connection back to its
main thread after every request, which waits for the next one and hands it to the pool again; it sends an answer's head
and body apart. Here a thread stays with its connection for a moment, and an answer that is whole leaves at once.

And its workers take turns at new connections (`gateway.turns`).
"""

from __future__ import annotations

import logging
import select
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from functools import cached_property, partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn import glogging, util
from gunicorn.http import errors as refusals
from gunicorn.http.errors import NoMoreData
from gunicorn.workers.gthread import ThreadWorker

from gateway.arrival import ArrivingSocket, TooSlow
from gateway.turns import turns

_log = logging.getLogger(__name__)
_REFUSED: Final = "The request cannot be read as HTTP."

_SENTENCES: Final = {
    HTTPStatus.REQUEST_URI_TOO_LONG: "The request line is too long.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The headers are too many or too large.",
    HTTPStatus.REQUEST_TIMEOUT: f"{TooSlow()}.",
    HTTPStatus.EXPECTATION_FAILED: "The expectation cannot be met.",
    HTTPStatus.NOT_IMPLEMENTED: "The transfer coding is not supported.",
}
_STATUS: Final[Mapping[type[Exception], HTTPStatus]] = {
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    refusals.LimitRequestLine: HTTPStatus.REQUEST_URI_TOO_LONG,
    refusals.LimitRequestHeaders: HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    refusals.ExpectationFailed: HTTPStatus.EXPECTATION_FAILED,
    refusals.UnsupportedTransferCoding: HTTPStatus.NOT_IMPLEMENTED,
    refusals.ForbiddenProxyRequest: HTTPStatus.FORBIDDEN,
    refusals.ConfigurationProblem: HTTPStatus.INTERNAL_SERVER_ERROR,
    # What the application wanted to send. Not in the types that mypy knows.
    refusals.InvalidResponseHeader: HTTPStatus.INTERNAL_SERVER_ERROR,  # type: ignore[attr-defined]
    refusals.InvalidResponseHeaderName: HTTPStatus.INTERNAL_SERVER_ERROR,  # type: ignore[attr-defined]
    refusals.ParseException: HTTPStatus.BAD_REQUEST,
}
"""gunicorn's errors → status, the first that fits. A test compares with what gunicorn would answer."""


def status_of(error: BaseException) -> HTTPStatus:
    """The status that a request is answered with which ended in ``error`` outside of the application."""
    for kind, status in _STATUS.items():
        if isinstance(error, kind):
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


UNREAD_BYTES_MAX: Final = 48 * 1024
"""Of a body that nobody read: as much as gunicorn certainly reads away, so that the connection can go on."""

_at_work = threading.local()


def close_after_answer() -> None:
    """Say in the answer of the request at work that its connection ends, and end it. Outside of gunicorn: nothing.

    gunicorn closes a connection with much of a body unread, as it must, but says that it is kept: the client's next
    request on it would fail.
    """
    request = getattr(_at_work, "request", None)
    if request is not None:
        request.force_close()


_DRAIN_SECONDS: Final = 0.1
"""How long the rest of an answered request is waited for before its connection is closed."""
_STAY_MS: Final = 10
"""How long a thread stays with a connection whose client may ask again at once."""


_HEAD_START_SECONDS: Final = 0.001
_HEAD_STARTS: Final = 5
"""How long, and how often, a worker leaves a new connection to one whose turn it is."""


class _WholeAnswers:
    """A client's socket that holds back the first thing sent, an answer's head, until the second, its body, comes."""

    def __init__(self, plain: socket.socket) -> None:
        self._plain = plain
        self._head: bytes | None = b""

    def sendall(self, content: bytes) -> None:
        """See ``socket.socket``."""
        if self._head is None:
            self._plain.sendall(content)
        elif not self._head:
            self._head = content
        else:
            head, self._head = self._head, None
            self._plain.sendall(head + content)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """See ``socket.socket``; a body that the kernel reads from a file comes after its head, too."""
        self.flush()
        return self._plain.sendfile(file, offset, count)

    def flush(self) -> None:
        """Send what is held back: of an answer without a body. Raises OSError."""
        if self._head:
            head, self._head = self._head, None
            self._plain.sendall(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)


class ServerLog(glogging.Logger):
    """gunicorn's log without its access lines, which would cost each request, and without what clients sent."""

    @property
    def access_log_enabled(self) -> bool:
        """Never: the application writes the access lines."""
        return False

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """See ``gunicorn.glogging.Logger``."""

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """An error that holds what has arrived of a request is named only."""
        named = (type(arg).__name__ if isinstance(arg, NoMoreData) else arg for arg in args)
        super().debug(msg, *named, **kwargs)


class Worker(ThreadWorker):
    """A gthread worker; see the module's docstring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._taken = turns.begin()
        # Half of the threads are never kept waiting, so that a request finds one at once.
        self._stays = threading.BoundedSemaphore(max(1, self.cfg.threads // 2))

    def accept(self, listener: Any) -> None:
        """Take a new connection, unless a worker does whose turn it is."""
        for _ in range(_HEAD_STARTS):
            if not turns.is_somebody_elses(self._taken):
                break
            time.sleep(_HEAD_START_SECONDS)
            if not _can_be_read(listener, 0):
                return
        before = self.nr_conns
        super().accept(listener)
        self._taken += self.nr_conns - before
        turns.tell(self.age, self._taken, self.nr_conns)

    def wait_for_and_dispatch_events(self, timeout: Any) -> None:
        """Wait for what comes next, and say how many connections there are."""
        turns.tell(self.age, self._taken, self.nr_conns)
        super().wait_for_and_dispatch_events(timeout)

    @cached_property
    def _read_seconds(self) -> float:
        from gateway.runtime import EXTENSION

        settings = self.wsgi.extensions[EXTENSION].settings  # type: ignore[attr-defined]
        return float(settings.read_timeout_ms) / 1000

    def enqueue_req(self, conn: Any) -> None:
        """Give a connection to a thread; a new one only when it has said something.

        gunicorn has a thread wait five seconds for the first byte of each: a few silent clients would have them all.
        """
        if conn.initialized or conn.data_ready:
            super().enqueue_req(conn)
            return
        conn.sock = ArrivingSocket.of(conn.sock, self._read_seconds)
        conn.sock.setblocking(False)
        conn.timeout = time.monotonic() + max(self.cfg.keepalive, self._read_seconds)
        self.pending_conns.append(conn)
        readable = partial(self.on_pending_socket_readable, conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, readable)

    def is_parent_alive(self) -> bool:
        """Without a master there is no successor either: let go of the address at once, for the next master.

        And of the connections, with the next answer of each: gunicorn would serve on those that are busy for as long as
        a stopping worker may finish what it has begun, and cut them then.
        """
        alive = bool(super().is_parent_alive())
        if not alive:
            self.alive = False
            self.set_accept_enabled(False)
            for listener in self.sockets:
                listener.close()
        return alive

    def _cap_keepalive(self, deadline: float) -> None:
        """Called when the worker stops: connections that have said nothing yet are not waited for any longer either."""
        super()._cap_keepalive(deadline)  # type: ignore[misc]  # not in the types that mypy knows
        for conn in self.pending_conns:
            conn.timeout = min(conn.timeout or deadline, deadline)

    def handle(self, conn: Any) -> Any:
        """Serve a request of a connection, and those that follow it at once."""
        conn.sock.expect_request()
        kept = super().handle(conn)
        while kept is True and self._another_comes(conn):
            conn.sock.expect_request()
            kept = super().handle(conn)
        if not kept:
            conn.sock.end(_DRAIN_SECONDS)
        return kept

    def _keepalive_after(self, conn: Any, keepalive: bool) -> bool:
        """Whether the connection can be used again: not if the rest of a refused body does not come at once. gunicorn
        waits five seconds for it, in a thread.
        """
        if not keepalive:
            return False
        conn.sock.expect_rest(_DRAIN_SECONDS)
        return bool(conn.parser.finish_body(deadline=time.monotonic() + _DRAIN_SECONDS))

    def handle_request(self, req: Any, conn: Any) -> Any:
        """See `close_after_answer`."""
        _at_work.request = req
        plain, conn.sock = conn.sock, _WholeAnswers(conn.sock)
        try:
            return super().handle_request(req, conn)
        finally:
            conn.sock.flush()
            conn.sock = plain
            _at_work.request = None

    def _another_comes(self, conn: Any) -> bool:
        """Whether the connection's next request is there within a moment in which nobody else needs this thread."""
        if not self.alive or self.tpool._work_queue.qsize() > 0:
            return False
        if conn.parser.unreader.buf.getvalue():
            return True  # read ahead, with the end of the request before
        if not self._stays.acquire(blocking=False):
            return False
        try:
            return _can_be_read(conn.sock, _STAY_MS)
        finally:
            self._stays.release()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what the application did not see, or what it failed at outside of its own error handlers."""
        # Imported in workers only.
        from gateway import refused
        from gateway.runtime import EXTENSION

        status = status_of(exc)
        if status is HTTPStatus.INTERNAL_SERVER_ERROR:
            # Without its path and query, which are the client's.
            _log.error("a request failed outside of the application", exc_info=exc)
        sentence = _SENTENCES.get(status, _REFUSED)
        settings = self.wsgi.extensions[EXTENSION].settings  # type: ignore[attr-defined]
        address = addr[0] if addr and settings.log_client_address else None
        content = refused.answer(status, sentence, reason=type(exc).__name__, address=address)
        try:
            util.write_nonblock(client, content)
        except OSError:
            _log.debug("a refused client did not wait for its answer")


def _can_be_read(sock: Any, timeout_ms: int) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(timeout_ms))
