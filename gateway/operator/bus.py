"""What an operator's command stands on: the settings, a connection with the rights that it needs, and its end.

The commands use the gateway's own environment (``NATS_URL`` and credentials, ``APIKEYS_*``, ``ROLES_*``) and need no
running gateway. What a script may rely on:

====  =============================================================================================================
exit  meaning
====  =============================================================================================================
0     done
1     it is not there, or not as it must be: no such key, session or letter; a stream that blocks; roles with
      mistakes, which were not applied; a damaged backup, or a stream that a restore would overwrite
2     the command or the environment is wrong; nothing was done
3     NATS, or a file that keys, roles or a backup are kept in, cannot be reached, read or written
4     the audit log cannot be written, so nothing was done (of several things: nothing from the one named on)
5     somebody else changed the same thing in the same moment; nothing was done
6     done, but the audit log could not be told so
7     restored, but NATS knows no ids of what was restored before it is started again
====  =============================================================================================================
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, NoReturn, Protocol, TypeVar

import click

from bridge import Bridge, BridgeConfig, BridgeError, BucketSpec, Bus
from gateway.bridge_config import bridge_config
from gateway.settings import Settings, SettingsError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

NOT_FOUND: Final = 1
CONFIGURATION_ERROR: Final = 2
UNAVAILABLE: Final = 3
AUDIT_UNAVAILABLE: Final = 4
CHANGED_MEANWHILE: Final = 5
AUDIT_INCOMPLETE: Final = 6
RESTART_NEEDED: Final = 7

NAME: Final = "beamline-gateway-cli"
"""What the connection is called at the server."""
CONNECT_SECONDS: Final = 5.0
_WORK_SECONDS: Final = 30.0


class Operation(Protocol[T_co]):
    """What runs on the bridge's loop."""

    def __call__(self, bus: Bus, /) -> Awaitable[T_co]: ...


class Run(Protocol):
    """Runs an operation on a connection and waits for what comes of it. Raises BridgeError."""

    def __call__(self, operation: Operation[T], /) -> T: ...


@dataclass(frozen=True, slots=True)
class Needs:
    """What a command must be allowed, and no more: streams that it reads single messages of, subjects that it
    publishes to, buckets that it reads and writes (and makes, where they are missing)."""

    reads: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    buckets: tuple[str, ...] = ()

    def __or__(self, other: Needs) -> Needs:
        return Needs(
            self.reads + other.reads,
            self.publishes + other.publishes,
            self.buckets + other.buckets,
        )


def operator_config(settings: Settings, needs: Needs) -> BridgeConfig:
    """The connection of a command. It makes and changes no stream, and no bucket but those it needs."""
    return replace(
        bridge_config(settings, name=NAME),
        streams=(),
        buckets=tuple(BucketSpec(name=name) for name in needs.buckets),
        requests=(),
        listens=(),
        consumers=(),
        reads=needs.reads,
        publishes=needs.publishes,
    )


@contextmanager
def operator_bus(
    settings: Settings, needs: Needs, work_seconds: float = _WORK_SECONDS
) -> Iterator[Run]:
    """Something that runs operations, each at most so long, on a connection of its own.

    Ends the process with a sentence when NATS is not there or refuses, and when an operation's own error is not
    caught.
    """
    bridge = Bridge(operator_config(settings, needs))
    bridge.start()

    def run(operation: Operation[T], /) -> T:
        return bridge.run(operation, time.monotonic() + work_seconds)

    try:
        if not bridge.wait_ready(CONNECT_SECONDS):
            fail("; ".join(bridge.health().missing), UNAVAILABLE)
        yield run
    except BridgeError as error:
        fail(str(error), UNAVAILABLE)
    finally:
        bridge.close(2.0)


def operator_settings() -> Settings:
    """The settings, or the end of the process with a line for each wrong variable."""
    # What the connection has to say is said by the command, in one line.
    logging.getLogger("bridge").setLevel(logging.CRITICAL)
    try:
        return Settings.from_environ(os.environ, serving=False)
    except SettingsError as error:
        fail("\n".join(error.problems), CONFIGURATION_ERROR)


def fail(sentence: str, code: int) -> NoReturn:
    """One clear line, and the end."""
    click.echo(sentence, err=True)
    sys.exit(code)
