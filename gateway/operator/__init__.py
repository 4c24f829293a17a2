"""The commands of those who run the gateway. What they share, and their exit codes: `gateway.operator.bus`."""

from __future__ import annotations

from typing import Final

import click

from gateway.operator import (
    apikeys,
    audit,
    backup,
    dlq,
    key_store,
    role_store,
    roles,
    sticky,
    streams,
)
from gateway.operator.bus import Needs
from gateway.settings import Settings

__all__ = ["COMMANDS", "needs_of_all"]

COMMANDS: Final[tuple[click.Command, ...]] = (
    apikeys.apikeys,
    audit.audit,
    backup.backup,
    backup.restore,
    dlq.dlq,
    roles.roles,
    sticky.sticky,
    streams.streams,
)


def needs_of_all(settings: Settings) -> Needs:
    """What an account for every command must be allowed; but for `streams`, which asks as the gateway, and for
    `backup` and `restore`, which are given a user of their own."""
    return dlq.needs_of_replay(settings) | sticky.NEEDS_TO_DROP | key_store.NEEDS | role_store.NEEDS
