"""The cheapest collector: takes OTLP over HTTP and says yes. ``python -m tests.bench.peers.otlp_sink PORT``

``GET /`` answers how many bytes of spans it was sent.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_received = 0


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own

    def data_received(self, data: bytes) -> None:
        global _received
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            head = self._rest[:end]
            found = _LENGTH.search(head)
            after = end + 4 + (int(found[1]) if found else 0)
            if after > len(self._rest):
                return
            self._rest = self._rest[after:]
            _received += after - end - 4
            body = b"" if head.startswith(b"POST") else str(_received).encode()
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )


async def main(port: int) -> None:
    """Serve for ever."""
    server = await asyncio.get_running_loop().create_server(Sink, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
