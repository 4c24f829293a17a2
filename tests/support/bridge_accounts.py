"""NATS servers with accounts: users who may do this and not that, and a configuration that changes."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.devstack.nats_server import NatsServer
from tests.support.waiting import wait_until

PASSWORD: Final = "a-password-of-the-tests"
Rules = Mapping[str, Mapping[str, Sequence[str]]]


def user(name: str, permissions: Rules | None = None, *, password: str = PASSWORD) -> str:
    """A user, as the server's configuration wants it. ``permissions``: publish | subscribe → allow | deny →
    subjects; without them the user may do everything in its account."""
    settings: dict[str, object] = {"user": name, "password": password}
    if permissions is not None:
        settings["permissions"] = permissions
    return json.dumps(settings)


def account(name: str, *users: str) -> str:
    """An account with JetStream."""
    return f"{json.dumps(name)}: {{ jetstream: enabled, users: [{', '.join(users)}] }}"


def accounts(*each: str) -> str:
    """What `NatsServer` takes as ``config``."""
    return "accounts: {\n" + "\n".join(each) + "\n}"


def reload(server: NatsServer, config: str) -> None:
    """Change the configuration of a running server; connections that are still allowed stay."""
    path = server.folder / "nats-server.conf"
    path.write_text(path.read_text().replace(server.config, config))
    server.config = config
    done = server.log_path.read_text().count("Reloaded server configuration")
    os.kill(server.pid, signal.SIGHUP)
    wait_until(
        lambda: server.log_path.read_text().count("Reloaded server configuration") > done,
        message=lambda: f"not reloaded:\n{server.log_tail()}",
    )
