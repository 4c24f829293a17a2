"""Arrival: how long a request may take to arrive, so that slow clients cannot hold the threads of a worker.

A blocking read has no bound of its own in a gunicorn thread: a client that sends its headers or its body a byte at a
time holds the thread, and its place at the gate, for as long as it likes.
"""

from __future__ import annotations

import contextlib
import math
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Final, Self

from gunicorn.http.errors import ParseException

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_CHUNK: Final = 4096


class TooSlow(ParseException):
    """The request did not arrive in time; nothing was done for it. Answered 408."""

    def __str__(self) -> str:
        return "The request did not arrive in time"


class ArrivingSocket(socket.socket):
    """A client's socket that is read from until a deadline, and no longer.

    The kernel ends a read in which nothing arrives, and the time is looked at before each: a byte now and then does
    not help. So the bound costs no system call; a read that begins just before the deadline ends within twice the time.

    Nor does what gunicorn sets: it makes the socket wait, or not, four times a request, each time with a system call
    that lets go of the GIL, and takes back most of it before anything is read or sent. Here that is when it is done.
    """

    _timeout: float | None = None
    _seconds = 0.0
    _deadline = math.inf
    _late: type[Exception] = TooSlow

    @classmethod
    def of(cls, plain: socket.socket, seconds: float) -> Self:
        """Take over ``plain``, which is of no use afterwards."""
        plain.setblocking(True)
        taken = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        whole, fraction = int(seconds), int(seconds % 1 * 1_000_000)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", whole, fraction))
        taken._seconds = seconds
        return taken

    def expect_request(self) -> None:
        """A request begins to arrive: its time starts."""
        self._deadline, self._late = time.monotonic() + self._seconds, TooSlow

    def expect_rest(self, seconds: float) -> None:
        """The request is answered: from now on reading raises TimeoutError, as gunicorn expects, after ``seconds``.

        gunicorn sets a timeout itself, but for each read: a byte now and then would go on for ever.
        """
        self._deadline, self._late = time.monotonic() + seconds, TimeoutError

    def end(self, seconds: float) -> None:
        """Nothing more is sent. Wait for the client to end its side, too, for ``seconds`` at most: gunicorn does it for
        longer, and in its main thread, where nobody is served meanwhile.
        """
        self.expect_rest(seconds)
        with contextlib.suppress(OSError):
            self.shutdown(socket.SHUT_WR)
            while self.recv(_CHUNK):
                pass

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """See ``socket.socket``. Raises TooSlow. With flags it only looks at what is there."""
        if flags:
            self._set_timeout()
            return super().recv(bufsize, flags)
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise self._late
        if self._late is TimeoutError:
            self.settimeout(remaining)
        self._set_timeout()
        try:
            return super().recv(bufsize)
        except BlockingIOError:
            raise self._late from None

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """See ``socket.socket``."""
        self._set_timeout()
        super().sendall(data, flags)

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """See ``socket.socket``."""
        self._set_timeout()
        return super().sendfile(file, offset, count)

    def settimeout(self, value: float | None, /) -> None:
        """See ``socket.socket``; holds from the next read or write on."""
        self._timeout = value

    def setblocking(self, flag: bool, /) -> None:
        """As `settimeout`."""
        self._timeout = None if flag else 0.0

    def gettimeout(self) -> float | None:
        """See ``socket.socket``."""
        return self._timeout

    def _set_timeout(self) -> None:
        if super().gettimeout() != self._timeout:
            super().settimeout(self._timeout)
