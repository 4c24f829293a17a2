"""The NATS client protocol, read as far as a proxy needs it: where one event ends and the next begins.

Every line is an event (``PING``, ``SUB``, ``+OK``, …); ``PUB``, ``HPUB``, ``MSG`` and ``HMSG`` are events together with
the payload that follows them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

_END: Final = b"\r\n"
#: Where the reply subject stands when the line has as many arguments, and how many arguments that is.
_REPLY_AT: Final = {"PUB": (1, 3), "HPUB": (1, 4), "MSG": (2, 4), "HMSG": (2, 5)}


@dataclass(frozen=True, slots=True)
class WireEvent:
    """One command of the client, or one line or message of the server; ``raw`` is all of it."""

    from_client: bool
    verb: str
    raw: bytes = field(repr=False)
    subject: str = ""
    reply: str = ""
    payload: bytes = field(default=b"", repr=False)
    """With the header block in front, where there is one."""


class WireParser:
    """Cuts one direction of a connection into events."""

    def __init__(self, *, from_client: bool) -> None:
        self._from_client = from_client
        self._buffer = bytearray()

    def feed(self, received: bytes) -> Iterator[WireEvent]:
        """The events that are complete now; what is not stays for the next call."""
        self._buffer += received
        while (event := self._next()) is not None:
            yield event

    def _next(self) -> WireEvent | None:
        end = self._buffer.find(_END)
        if end < 0:
            return None
        words = bytes(self._buffer[:end]).decode().split()
        verb = words[0].upper() if words else ""
        place = _REPLY_AT.get(verb)
        if place is None:
            return WireEvent(self._from_client, verb, self._take(end + 2))
        arguments = words[1:]
        payload_begins = end + 2
        total = payload_begins + int(arguments[-1]) + 2
        if len(self._buffer) < total:
            return None
        reply_at, with_reply = place
        raw = self._take(total)
        return WireEvent(
            self._from_client,
            verb,
            raw,
            subject=arguments[0],
            reply=arguments[reply_at] if len(arguments) == with_reply else "",
            payload=raw[payload_begins:-2],
        )

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken
