"""The one NATS connection of a bridge: connect, reconnect, close, and what "connected" means.

*Connected* means that nats-py holds an open connection whose handshake is done. While it does not,
`client` raises `NotSent` at once and nothing is buffered (``pending_size=0``): a publish that nats-py
kept for later would be stored after its caller was told that it failed.

nats-py reconnects by itself and gives up only when the server says that the account is gone. The
supervisor here covers that too: it makes a new client for as long as it is not closed. A server that is
frozen (its socket open, nothing answered) counts as gone after ``max_outstanding_pings + 1`` ping
intervals, even if it has not taken all that was sent to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client

from bridge.config import BridgeConfig, Tls
from bridge.errors import Closed, NotSent
from bridge.replies import RequestingClient

_log = logging.getLogger(__name__)
_VIOLATION = re.compile(
    r"Permissions Violation for (?P<verb>Publish|Subscription) (?:to|with) \"(?P<subject>[^\"]+)\"",
    re.IGNORECASE,
)
_REFUSED = "Authorization Violation"
_LOG_EVERY_SECONDS = 30.0
_WATCH_SECONDS = 0.25


class Connection:
    """Keeps one client connected; see the module's docstring.

    ``on_connected`` is awaited in a task of its own after every connect and reconnect;
    ``on_disconnected`` is called when a connection is lost.
    """

    def __init__(
        self,
        config: BridgeConfig,
        *,
        on_connected: Callable[[], Awaitable[None]],
        on_disconnected: Callable[[], None],
    ) -> None:
        self._config = config
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._tls = _ssl_context(config.tls) if config.tls else None
        self._client: Client | None = None
        self._up: asyncio.Task[None] | None = None
        self._is_up = asyncio.Event()
        self._closing = False
        self._logged_at = 0.0
        self._connected_at = 0.0
        self._stirred_at = 0.0
        self.connects = 0
        """How often a connection was made; one less is the number of reconnects."""
        self.last_error: str | None = None
        self.violations: dict[str, str] = {}
        """Subjects that the server refused to this account → publish | subscribe. In lower case, as nats-py
        tells them."""
        self.on_violation: Callable[[str, str], None] | None = None

    @property
    def connected(self) -> bool:
        """Whether a message handed over now would reach the server's socket."""
        client = self._client
        return client is not None and client.is_connected and not client.is_draining

    @property
    def client(self) -> Client:
        """The connected client. Raises NotSent or Closed, at once, when there is none."""
        client = self._client
        if self._closing:
            raise Closed("the connection is closing")
        if client is None or not client.is_connected:
            raise NotSent(f"not connected to NATS ({self.last_error or 'connecting'})")
        return client

    async def wait_connected(self, deadline: float) -> None:
        """Return when connected again, or at ``deadline`` (monotonic seconds) whatever is then."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                await self._is_up.wait()

    async def supervise(self) -> None:
        """Connect and stay connected until `close`. Runs as a task of the loop."""
        while not self._closing:
            closed = asyncio.Event()
            client = RequestingClient()
            self._client = client
            try:
                await client.connect(**self._options(closed))
            except Exception as error:
                # Whatever it was: without this task nobody would connect again.
                await self._note_error(error)
                _abort(client)
                await asyncio.sleep(self._config.reconnect_wait_seconds)
                continue
            self._connected()
            await self._watch(client, closed)
            if not self._closing:
                self._disconnected()
                await _end(client, self._config.reconnect_wait_seconds)
                await asyncio.sleep(self._config.reconnect_wait_seconds)

    async def _watch(self, client: Client, closed: asyncio.Event) -> None:
        """Return when the client is closed, or will not reconnect by itself any more.

        nats-py can stop on its way to a reconnect. It first waits until the old socket has taken all that was
        written, which a frozen server never lets happen; and an error that it does not expect ends its task.
        """
        patience = 5 * (self._config.connect_timeout_seconds + self._config.reconnect_wait_seconds)
        while not closed.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_SECONDS):
                    await closed.wait()
            if client.is_connected:
                self._stirred_at = time.monotonic()
            elif self._is_up.is_set():
                _abort(client)
            elif time.monotonic() - self._stirred_at > patience:
                _log.warning("NATS: the client does not try to connect any more; making a new one")
                return

    @staticmethod
    async def flush(client: Client) -> None:
        """Return when the server has taken everything that was handed over before. The caller bounds it.

        nats-py's ping is written at once and overtakes what still waits to be written; its flush alone is no barrier.
        """
        while client.pending_data_size and client.is_connected:  # noqa: ASYNC110 - nats-py has no event
            await asyncio.sleep(0.001)
        # Shielded: nats-py's read loop ends when a pong comes for which nobody waits any more, and the connection
        # is deaf from then on.
        await asyncio.shield(asyncio.ensure_future(client.flush()))

    async def close(self, timeout: float) -> None:
        """Flush what was sent, then close; never raises, never longer than ``timeout`` seconds."""
        up = self._up
        self._cancel_up()
        if up is not None:  # services give back what they have in hand, on this connection
            await asyncio.wait({up}, timeout=timeout / 4)
        self._closing = True
        client = self._client
        if client is None:
            return
        # Flush and close rather than nats-py's `drain`: that one raises while reconnecting and, with a
        # frozen server, leaves tasks behind whose failures nobody reads.
        with contextlib.suppress(Exception):
            if client.is_connected:
                async with asyncio.timeout(timeout / 4):
                    await self.flush(client)
        await _end(client, timeout / 2)

    async def renew(self) -> None:
        """Give up this connection for a new one. What waits for an answer on it is told that it is lost."""
        if self._client is not None:
            await self._client.force_reconnect()

    @property
    def age_seconds(self) -> float:
        """How long ago this connection was made."""
        return time.monotonic() - self._connected_at

    def forget_refused_publishes(self) -> None:
        """For whoever is going to try them again. Refused subscriptions stay known: the server was told of
        them once, and will not deliver on this connection whatever the account may do later."""
        for subject, verb in list(self.violations.items()):
            if verb == "publish":
                del self.violations[subject]

    def _options(self, closed: asyncio.Event) -> dict[str, Any]:
        config = self._config

        async def on_closed() -> None:
            closed.set()

        async def on_lost() -> None:
            self._disconnected()

        async def on_reconnected() -> None:
            self._connected()

        options: dict[str, Any] = {
            "servers": list(config.servers),
            "name": config.name,
            "error_cb": self._note_error,
            "disconnected_cb": on_lost,
            "reconnected_cb": on_reconnected,
            "closed_cb": on_closed,
            "connect_timeout": config.connect_timeout_seconds,
            "reconnect_time_wait": config.reconnect_wait_seconds,
            "max_reconnect_attempts": -1,
            "ping_interval": config.ping_interval_seconds,
            "max_outstanding_pings": config.max_outstanding_pings,
            "pending_size": 0,
            "inbox_prefix": config.inbox_prefix,
            "user": config.user,
            "password": config.password,
            "token": config.token,
        }
        if config.credentials_file is not None:
            options["user_credentials"] = str(config.credentials_file)
        if self._tls is not None:
            options["tls"] = self._tls
        return options

    def _connected(self) -> None:
        self.connects += 1
        self._connected_at = self._stirred_at = time.monotonic()
        self.last_error = None
        self.violations.clear()
        self._cancel_up()
        self._is_up.set()
        self._up = asyncio.ensure_future(self._on_connected())
        _log.info("connected to NATS")

    def _disconnected(self) -> None:
        self._cancel_up()
        self._is_up.clear()
        self._stirred_at = time.monotonic()
        if not self._closing:
            _log.warning("connection to NATS lost")
        self._on_disconnected()

    def _cancel_up(self) -> None:
        if self._up is not None:
            self._up.cancel()
            self._up = None

    async def _note_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        now = self._stirred_at = time.monotonic()
        news = now - self._logged_at >= _LOG_EVERY_SECONDS
        if found := _VIOLATION.search(text):
            subject = found["subject"].lower()
            verb = "publish" if found["verb"].lower() == "publish" else "subscribe"
            # A refused subject is refused at every request: once is enough.
            news |= subject not in self.violations
            self.violations[subject] = verb
            if self.on_violation is not None:
                self.on_violation(verb, subject)
        elif not (isinstance(error, ConnectionResetError) and _REFUSED in (self.last_error or "")):
            # A server that refuses a client closes the socket in the same moment, and its words may get lost. They
            # were heard once: they say more than the reset.
            self.last_error = text
        client = self._client
        if client is not None and not client.is_connected:
            _abort(client)  # an attempt to connect failed; nats-py leaves its socket open
        if news:
            self._logged_at = now
            _log.warning("NATS: %s", text)


async def _end(client: Client, timeout: float) -> None:
    """Close the client; never raises, never longer than ``timeout`` seconds."""
    # A task of its own: closing writes first what is still to be written, and may end with ConnectionResetError or,
    # when it cancels what waits for the same socket, with a CancelledError that is not meant for us.
    closing = asyncio.ensure_future(client.close())
    closing.add_done_callback(lambda task: task.cancelled() or task.exception())
    await asyncio.wait({closing}, timeout=timeout)
    closing.cancel()
    _abort(client)


def _abort(client: Client) -> None:
    """Drop the client's socket together with what it has not taken.

    nats-py has no public way: closing waits until everything is written. Should its private names change, what
    is left is that wait.
    """
    writer = getattr(getattr(client, "_transport", None), "_io_writer", None)
    if writer is not None:
        writer.transport.abort()


def _ssl_context(tls: Tls) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(tls.ca_file) if tls.ca_file else None)
    if tls.cert_file is not None:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    return context
