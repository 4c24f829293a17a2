"""Needs: what the account of those who run the gateway must be allowed."""

from __future__ import annotations

from gateway.operator import dlq, key_store, role_store, sticky
from gateway.operator.bus import Needs
from gateway.settings import Settings


def needs_of_all(settings: Settings) -> Needs:
    """What an account for every command must be allowed; but for `streams`, which asks as the gateway, and for
    `backup` and `restore`, which are given a user of their own."""
    return dlq.needs_of_replay(settings) | sticky.NEEDS_TO_DROP | key_store.NEEDS | role_store.NEEDS
