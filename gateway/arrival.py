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
from typing import Final, Self

from gunicorn.http.errors import ParseException

_CHUNK: Final = 4096


class TooSlow(ParseException):
    """The request did not arrive in time; nothing was done for it. Answered 408."""

    def __str__(self) -> str:
        return "The request did not arrive in time"


class ArrivingSocket(socket.socket):
    """A client's socket that is read from until a deadline, and no longer.

    The kernel ends a read in which nothing arrives, and the time is looked at before each: a byte now and then does
    not help. So the bound costs no system call; a read that begins just before the deadline ends within twice the time.
    """

    _seconds = 0.0
    _deadline = math.inf
    _late: type[Exception] = TooSlow

    @classmethod
    def of(cls, plain: socket.socket, seconds: float) -> Self:
        """Take over ``plain``, which is of no use afterwards."""
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
            return super().recv(bufsize, flags)
        remaining = self._deadline - time.monotonic()
        if remaining <= 0:
            raise self._late
        if self._late is TimeoutError:
            self.settimeout(remaining)
        try:
            return super().recv(bufsize)
        except BlockingIOError:
            raise self._late from None
