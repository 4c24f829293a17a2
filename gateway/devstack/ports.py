"""Loopback ports that stay ours: no fixed numbers, and the same number again after a restart."""

from __future__ import annotations

import socket
import sys
from types import TracebackType
from typing import Final, Self

LOOPBACK: Final = "127.0.0.1"


class PortReservation:
    """Holds one TCP port for a server that is started, killed and started again on it.

    The port is bound, never listened on, for as long as the reservation is open. A server that sets
    ``SO_REUSEADDR`` (nats-server and gunicorn do) can listen on it all the same, and while it does not,
    a connection is refused. What nobody else gets is the number: without this, a client that keeps
    trying a dead port of the ephemeral range may be handed that very port as its own end and connect to
    itself, and a server that comes back may find it taken.

    Systems other than Linux do not let a second socket bind beside this one: there the port is given
    free at once, and only its number is remembered.
    """

    def __init__(self, port: int = 0, host: str = LOOPBACK) -> None:
        """Reserve ``port``, or any free one if it is 0. Raises OSError if it is taken."""
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind((host, port))
        except OSError:
            self._socket.close()
            raise
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        if sys.platform != "linux":
            self._socket.close()

    @property
    def address(self) -> str:
        """``host:port``, as URLs and configuration files want it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def close(self) -> None:
        """Give the number back. Closing twice is allowed."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
