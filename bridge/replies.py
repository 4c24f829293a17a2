"""Replies: nats-py's client, with a `request` of ours.

nats-py's asks the kernel for random bytes at every request, and waits with `asyncio.wait_for`: a task and a timer more,
and on Python 3.11 a cancellation is forgotten that comes in the same turn as the answer. Here every request has a
number of its own on the client's one inbox, and whatever comes to it after its time is dropped.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

_STATUS: Final = "Status"
_NO_RESPONDERS: Final = "503"


class RequestingClient(Client):
    """A client whose requests are cheap. JetStream's contexts ask with it, too."""

    def __init__(self) -> None:
        super().__init__()
        self._inbox = ""
        self._numbers = count()
        self._asked: dict[str, asyncio.Future[Msg | None]] = {}

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        timeout: float = 0.5,
        old_style: bool = False,
        headers: dict[str, Any] | None = None,
    ) -> Msg:
        """See `Client.request`; ``timeout`` is in seconds, and ``old_style`` makes no difference."""
        if not self._inbox:
            await self._listen()
        loop = asyncio.get_running_loop()
        reply = f"{self._inbox}{next(self._numbers)}"
        answer: asyncio.Future[Msg | None] = loop.create_future()
        self._asked[reply] = answer
        timer = loop.call_later(timeout, _give_up, answer)
        try:
            await self.publish(subject, payload, reply, headers)
            message = await answer
        finally:
            timer.cancel()
            del self._asked[reply]
        if message is None:
            raise NatsTimeoutError
        if message.headers and message.headers.get(_STATUS) == _NO_RESPONDERS:
            raise NoRespondersError
        return message

    async def _listen(self) -> None:
        # Known before the server is told: nothing that others send meanwhile gets ahead of the subscription.
        self._inbox = f"{self.new_inbox()}."
        try:
            await self.subscribe(f"{self._inbox}*", cb=self._hear)
        except BaseException:
            self._inbox = ""
            raise

    async def _hear(self, message: Msg) -> None:
        answer = self._asked.get(message.subject)
        if answer is not None and not answer.done():
            answer.set_result(message)


def _give_up(answer: asyncio.Future[Msg | None]) -> None:
    # No exception: one whose task was cancelled in the same turn would be logged as never seen.
    if not answer.done():
        answer.set_result(None)
