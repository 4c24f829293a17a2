"""What a stack takes before anything starts: its folder, the gateway's address, NATS' ports. A taken one is told."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gateway.devstack.nats_server import NatsServer
from gateway.devstack.ports import PortReservation


class StackError(Exception):
    """The stack cannot go on; the message says why, in one line."""


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """Make the state folder and keep it ours: two servers on one store would destroy it."""
    lock: IO[str] | None = None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n", encoding="ascii")
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StackError(f"another one is running with its state in {folder}") from None
    except OSError as error:
        raise StackError(f"cannot keep state in {folder}: {error.strerror}") from None
    else:
        yield folder
    finally:
        if lock is not None:
            lock.close()


@contextlib.contextmanager
def reserved_address(bind: str) -> Iterator[PortReservation]:
    """The gateway's address, ours from now on: a taken port is told before anything starts."""
    host, _, port = bind.rpartition(":")
    try:
        reservation = PortReservation(int(port), host.strip("[]"))
    except (OSError, ValueError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "expected host:port"
        raise StackError(f"cannot listen on {bind}: {reason} (GATEWAY_BIND)") from None
    with reservation:
        yield reservation


@contextlib.contextmanager
def nats_server(folder: Path, port: int) -> Iterator[NatsServer]:
    """The server, its ports ours and not yet started; ended in the end."""
    try:
        server = NatsServer(folder, port=port, config="logtime: false")
    except OSError as error:
        raise StackError(f"NATS cannot listen on port {port}: {error.strerror}") from None
    try:
        yield server
    finally:
        server.close()
