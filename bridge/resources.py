"""The audit: streams and buckets are made or adopted, widened and looked at, at every connect and now and then.

What the audit finds is a list of `Finding`. ``blocking`` findings mean that the bridge cannot do its work
(a stream is missing and cannot be made, a permission lacks); the others say what is unsafe or different
and are for the operator. Nothing here deletes or narrows anything: two instances with different
configurations widen once each and then only report.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from nats.js import errors as js_errors

from bridge.config import BridgeConfig, StreamSpec
from bridge.levels import StreamLevel
from bridge.permissions import missing_permissions
from bridge.streams import bucket_stream, ensure, foreign_owners, milliseconds

_API_TIMEOUT_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the audit about one resource."""

    resource: str
    message: str
    blocking: bool = False

    def __str__(self) -> str:
        return f"{self.resource}: {self.message}"


@dataclass(frozen=True, slots=True)
class Audit:
    """What the last look at the server found.

    ``created`` holds the birth of each stream and bucket, ``ttls_ms`` how long each bucket keeps an entry (0: for
    ever), ``weak`` the subjects whose stream forgets ids earlier than it should, ``levels`` how full each stream and
    bucket is, those of other owners included. ``clock_offset`` is the server's
    time since 1970 minus this process' monotonic clock, in seconds. ``widened``: something was, and should be looked
    at again soon, because another instance may have widened it less in the same moment, from what it had read before.
    """

    findings: tuple[Finding, ...] = ()
    created: Mapping[str, str] = field(default_factory=dict)
    ttls_ms: Mapping[str, int] = field(default_factory=dict)
    weak: frozenset[str] = frozenset()
    levels: Mapping[str, StreamLevel] = field(default_factory=dict)
    clock_offset: float | None = None
    widened: bool = False

    @property
    def passed(self) -> bool:
        """No finding that keeps the bridge from its work."""
        return not any(finding.blocking for finding in self.findings)

    def ttl_ms(self, bucket: str) -> int | None:
        """How long ``bucket`` really keeps an entry; None: not known, or for ever."""
        return self.ttls_ms.get(f"KV_{bucket}") or None

    def server_now(self) -> float | None:
        """The server's clock, in seconds since 1970."""
        return None if self.clock_offset is None else time.monotonic() + self.clock_offset


async def audit(client: Client, config: BridgeConfig) -> Audit:
    """Create what is missing, widen what is too narrow, and report the rest.

    Raises nothing of nats-py: what cannot be looked at is a blocking finding.
    """
    findings = [
        Finding("account", sentence, blocking=True)
        for sentence in await missing_permissions(client, config)
    ]
    js = client.jetstream(timeout=_API_TIMEOUT_SECONDS)
    specs = [(spec, False) for spec in config.streams]
    specs += [(bucket_stream(spec), True) for spec in config.buckets if not spec.read_only]
    only_read = [bucket_stream(spec) for spec in config.buckets if spec.read_only]
    # All at once: a question that the account may not ask is not answered, and takes its whole timeout.
    parts = await asyncio.gather(
        *(_audit_one(js, spec, config.replicas, is_bucket=is_bucket) for spec, is_bucket in specs),
        *(_look_at(js, spec, config.replicas) for spec in only_read),
    )
    created = {name: birth for part in parts for name, birth in part.created.items()}
    return Audit(
        # Each once: a stream may be found by several of its subjects.
        findings=tuple(dict.fromkeys((*findings, *(f for part in parts for f in part.findings)))),
        created=created,
        ttls_ms={name: ttl_ms for part in parts for name, ttl_ms in part.ttls_ms.items()},
        weak=frozenset().union(*(part.weak for part in parts)),
        levels={name: level for part in parts for name, level in part.levels.items()},
        clock_offset=await _clock_offset(client, next(iter(created), None)),
        widened=any(part.widened for part in parts),
    )


async def _audit_one(
    js: JetStreamContext, spec: StreamSpec, replicas: int, *, is_bucket: bool
) -> Audit:
    """The audit of one stream or bucket."""
    findings: list[Finding] = []
    weak: set[str] = set()
    levels: dict[str, StreamLevel] = {}
    try:
        foreign = await foreign_owners(js, spec)
        info, widened = await ensure(js, spec, foreign, replicas, is_bucket=is_bucket)
        for subject, owner in foreign.items():
            adopted = await js.stream_info(owner)
            levels[owner] = StreamLevel.of(adopted)
            findings += _adoption_findings(adopted, spec, subject)
            if _forgets_ids(adopted.config, spec):
                weak.add(subject)
    except (NatsError, OSError, ValueError) as error:
        findings.append(Finding(spec.name, f"cannot be made or read: {error}", blocking=True))
        return Audit(tuple(findings), weak=frozenset(weak))
    if info is None:
        return Audit(tuple(findings), weak=frozenset(weak), levels=levels)
    levels[spec.name] = StreamLevel.of(info)
    findings += _stream_findings(info, spec, replicas)
    if not is_bucket and _forgets_ids(info.config, spec):
        weak.update(set(spec.subjects) - foreign.keys())
    return Audit(
        tuple(findings),
        created={spec.name: str(info.created)},
        ttls_ms={spec.name: milliseconds(info.config.max_age)} if is_bucket else {},
        weak=frozenset(weak),
        levels=levels,
        widened=widened,
    )


async def _look_at(js: JetStreamContext, spec: StreamSpec, replicas: int) -> Audit:
    """The audit of a bucket that others make and write."""
    try:
        info = await js.stream_info(spec.name)
    except js_errors.NotFoundError:
        why = "is not there; whoever writes it has to make it"
        return Audit((Finding(spec.name, why, blocking=True),))
    except (NatsError, OSError, ValueError) as error:
        return Audit((Finding(spec.name, f"cannot be read: {error}", blocking=True),))
    findings = [*_safety_findings(info, spec, replicas)]
    if (age_ms := milliseconds(info.config.max_age)) and not spec.max_age_ms:
        findings.append(Finding(spec.name, f"forgets its entries after {age_ms} ms"))
    return Audit(
        tuple(findings),
        created={spec.name: str(info.created)},
        ttls_ms={spec.name: age_ms},
        levels={spec.name: StreamLevel.of(info)},
    )


def _forgets_ids(config: api.StreamConfig, spec: StreamSpec) -> bool:
    """Whether a repeated message could be stored again within the window that ``spec`` needs."""
    window_ms, age_ms = milliseconds(config.duplicate_window), milliseconds(config.max_age)
    return (
        window_ms < spec.duplicate_window_ms
        or (age_ms > 0 and age_ms < spec.duplicate_window_ms)
        or config.storage == api.StorageType.MEMORY
        or config.retention != api.RetentionPolicy.LIMITS
    )


async def _clock_offset(client: Client, stream: str | None) -> float | None:
    if stream is None:
        return None
    # Counted from before the question: rather early than late is what a record's remaining time has to be.
    asked_at = time.monotonic()
    try:
        reply = await client.request(
            f"$JS.API.STREAM.INFO.{stream}", b"", timeout=_API_TIMEOUT_SECONDS
        )
        now = json.loads(reply.data)["ts"]
        return datetime.fromisoformat(now).timestamp() - asked_at
    except (NatsError, OSError, ValueError, KeyError):
        return None


def _stream_findings(info: api.StreamInfo, spec: StreamSpec, replicas: int) -> Iterator[Finding]:
    """What differs from the declaration in a stream of our own name."""
    config = info.config
    if milliseconds(config.duplicate_window) > spec.duplicate_window_ms:
        yield Finding(
            spec.name,
            f"duplicate window is {milliseconds(config.duplicate_window)} ms, this instance wants"
            f" {spec.duplicate_window_ms} ms: instances disagree, the larger one holds",
        )
    if spec.max_age_ms and (milliseconds(config.max_age) > spec.max_age_ms or not config.max_age):
        yield Finding(
            spec.name,
            f"messages are kept {f'{milliseconds(config.max_age)} ms' if config.max_age else 'for ever'},"
            f" this instance wants {spec.max_age_ms} ms: instances disagree, the longer one holds",
        )
    yield from _safety_findings(info, spec, replicas)


def _safety_findings(info: api.StreamInfo, spec: StreamSpec, replicas: int) -> Iterator[Finding]:
    config = info.config
    name = config.name or spec.name
    if config.storage == api.StorageType.MEMORY:
        yield Finding(name, "memory storage: everything is lost when the server restarts")
    if (config.num_replicas or 1) < replicas:
        yield Finding(
            name, f"{config.num_replicas or 1} replica(s), NATS_REPLICAS asks for {replicas}"
        )
    if config.retention != api.RetentionPolicy.LIMITS:
        yield Finding(
            name, f"{config.retention} retention: a restart forgets ids of consumed messages"
        )
    if config.discard != api.DiscardPolicy.NEW:
        yield Finding(name, "a full stream discards old messages instead of refusing new ones")


def _adoption_findings(info: api.StreamInfo, spec: StreamSpec, subject: str) -> Iterator[Finding]:
    """What is unsafe about the stream of another owner that holds a subject of ``spec``."""
    owner = info.config.name or ""
    window_ms, age_ms = (
        milliseconds(info.config.duplicate_window),
        milliseconds(info.config.max_age),
    )
    yield Finding(owner, f"holds {subject} already and is used as it is")
    if window_ms < spec.duplicate_window_ms:
        yield Finding(
            owner,
            f"duplicate window {window_ms} ms is shorter than the"
            f" {spec.duplicate_window_ms} ms that {subject} needs",
        )
    if age_ms and age_ms < spec.duplicate_window_ms:
        yield Finding(owner, f"keeps messages for {age_ms} ms only")
    yield from _safety_findings(info, spec, 1)
