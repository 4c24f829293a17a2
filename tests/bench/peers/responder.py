"""The cheapest Router: answers every decide with the same decision. ``python -m tests.bench.peers.responder HOST PORT``

Speaks NATS itself, since a client library would cost more than the answer; some 60,000 answers a second on one core.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

_DECISION = (
    b'{"ok":true,"decision":{"provider_id":"openai:gpt-4o","priority":50,"expected_latency_ms":850,'
    b'"expected_cost":0.012,"reason":"best_score","metadata":{}},"context":{}}'
)
_HELLO = (
    b'CONNECT {"verbose":false,"headers":true,"no_responders":true,"name":"responder"}\r\n'
    b"SUB beamline.router.v1.decide 1\r\nPING\r\n"
)


class Responder(asyncio.Protocol):
    """One connection."""

    def __init__(self, lost: asyncio.Event) -> None:
        self._rest = b""
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has one of its own
        self._transport.write(_HELLO)

    def data_received(self, data: bytes) -> None:
        content, start, answers = self._rest + data, 0, []
        while (end := content.find(b"\r\n", start)) >= 0:
            words = content[start:end].split(b" ")
            if words[0] in (b"MSG", b"HMSG"):
                after = end + 2 + int(words[-1]) + 2
                if after > len(content):
                    break
                answers.append(b"PUB %b %d\r\n%b\r\n" % (words[3], len(_DECISION), _DECISION))
                start = after
                continue
            if words[0] == b"PING":
                answers.append(b"PONG\r\n")
            start = end + 2
        self._rest = content[start:]
        if answers:
            self._transport.write(b"".join(answers))

    def connection_lost(self, _error: Exception | None) -> None:
        self._lost.set()


async def main(host: str, port: int) -> None:
    """Answer until NATS is gone."""
    lost = asyncio.Event()
    await asyncio.get_running_loop().create_connection(lambda: Responder(lost), host, port)
    await lost.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
