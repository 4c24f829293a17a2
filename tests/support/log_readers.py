"""Gateways whose output goes elsewhere than into a file: to a pipe with a lazy reader, to a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import threading
from collections.abc import Mapping
from typing import IO

from tests.support.gateway_process import GatewayProcess


class PipedGateway(GatewayProcess):
    """Its output goes to a pipe that nobody reads until `read_on`."""

    def __init__(
        self, nats_url: str | None = None, *, environment: Mapping[str, str | None] | None = None
    ) -> None:
        super().__init__(nats_url, environment=environment)
        self._reader, self._writer = os.pipe()
        self._read = bytearray()
        self._reading: threading.Thread | None = None

    def read_on(self) -> None:
        """Read from now on."""
        self._reading = threading.Thread(target=self._read_all, daemon=True)
        self._reading.start()

    def stop_reading(self) -> None:
        """Close the reading end, as a log collector that died; nothing may be reading."""
        assert self._reading is None
        os.close(self._reader)
        self._reader = -1

    def output(self) -> str:
        """What was read of it."""
        return bytes(self._read).decode(errors="replace")

    def close(self) -> None:
        super().close()
        self._close_writer()
        if self._reading is not None:
            self._reading.join()
        if self._reader >= 0:
            os.close(self._reader)

    def _open_output(self) -> IO[bytes]:
        output = os.fdopen(os.dup(self._writer), "wb")
        self._close_writer()
        return output

    def _close_writer(self) -> None:
        if self._writer >= 0:
            os.close(self._writer)
            self._writer = -1

    def _read_all(self) -> None:
        while piece := os.read(self._reader, 65536):
            self._read += piece


class TerminalGateway(GatewayProcess):
    """Its output goes to a terminal."""

    def __init__(
        self, nats_url: str | None = None, *, environment: Mapping[str, str | None] | None = None
    ) -> None:
        super().__init__(nats_url, environment=environment)
        self._screen, self._terminal = pty.openpty()
        self._shown = bytearray()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def output(self) -> str:
        """What it has shown."""
        return bytes(self._shown).decode(errors="replace")

    def close(self) -> None:
        super().close()
        os.close(self._terminal)
        self._watching.join()
        os.close(self._screen)

    def _open_output(self) -> IO[bytes]:
        return os.fdopen(os.dup(self._terminal), "wb")

    def _watch(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the terminal open any more
            while piece := os.read(self._screen, 65536):
                self._shown += piece
