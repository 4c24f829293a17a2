"""Permissions: the least that the account needs, and what of it is missing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from bridge.config import BridgeConfig

USER_INFO_SUBJECT: Final = "$SYS.REQ.USER.INFO"
_TIMEOUT_SECONDS: Final = 2.0
_MAKING: Final = ("INFO", "CREATE", "UPDATE")


def required_permissions(config: BridgeConfig) -> dict[str, tuple[str, ...]]:
    """The least that the account must be allowed: ``publish`` and ``subscribe`` subjects, sorted."""
    publish = {USER_INFO_SUBJECT, "$JS.API.STREAM.NAMES", *config.requests}
    if config.publishes is not None:
        publish.update(config.publishes)
    else:
        publish.update(subject for stream in config.streams for subject in stream.subjects)
    for bucket in config.buckets:
        publish.add(f"$JS.API.STREAM.MSG.GET.KV_{bucket.name}")
        if not bucket.read_only:
            publish.add(f"$KV.{bucket.name}.>")
        # Who may change a bucket's configuration may have other subjects stored into it: as good as writing.
        verbs = ("INFO",) if bucket.read_only else _MAKING
        publish.update(f"$JS.API.STREAM.{verb}.KV_{bucket.name}" for verb in verbs)
    for stream in config.streams:
        publish.update(f"$JS.API.STREAM.{verb}.{stream.name}" for verb in _MAKING)
    publish.update(f"$JS.API.STREAM.MSG.GET.{name}" for name in config.reads)
    for consumer in config.consumers:
        owner = next(s.name for s in config.streams if consumer.subject in s.subjects)
        publish.update(
            f"$JS.API.CONSUMER.{verb}.{owner}.{consumer.durable}"
            for verb in ("DURABLE.CREATE", "INFO", "MSG.NEXT")
        )
        publish.add(f"$JS.ACK.{owner}.{consumer.durable}.>")
    return {
        "publish": tuple(sorted(publish)),
        "subscribe": tuple(sorted({f"{config.inbox_prefix}.>", *config.listens})),
    }


async def missing_permissions(client: Client, config: BridgeConfig) -> list[str]:
    """What the account may not do although it is needed, a sentence each, as the server tells it.

    The server is asked what it allows instead of trying: a refused publish is reported late and by subject only, and
    a permitted one would be a message.
    """
    try:
        reply = await client.request(USER_INFO_SUBJECT, b"", timeout=_TIMEOUT_SECONDS)
        user = json.loads(reply.data).get("data") or {}
    except (NatsError, OSError, ValueError) as error:
        return [
            f"may not publish to {USER_INFO_SUBJECT} (or the server does not answer it: {error}),"
            " so its other permissions cannot be checked"
        ]
    permissions = user.get("permissions") or {}
    missing = []
    for verb, subjects in required_permissions(config).items():
        rules = permissions.get(verb) or {}
        missing += [
            f"may not {verb} to {subject}"
            for subject in subjects
            if not _permitted(subject, rules.get("allow"), rules.get("deny"))
        ]
    return missing


def _permitted(subject: str, allow: Iterable[str] | None, deny: Iterable[str] | None) -> bool:
    if allow is not None and not any(covers(pattern, subject) for pattern in allow):
        return False
    return not any(covers(pattern, subject) for pattern in deny or ())


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that ``subject`` (itself perhaps a pattern) stands for matches ``pattern``."""
    wanted = subject.split(".")
    tokens = pattern.split(".")
    for index, token in enumerate(tokens):
        if token == ">":
            return len(wanted) > index
        if index >= len(wanted) or wanted[index] == ">":
            return False
        if token != "*" and token != wanted[index]:
            return False
    return len(tokens) == len(wanted)
