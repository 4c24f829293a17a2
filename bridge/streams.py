"""Streams: made as they are declared, and widened where they are narrower. Nothing is deleted or narrowed."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any, Final

from nats.js import JetStreamContext, api
from nats.js import errors as js_errors

from bridge.config import BucketSpec, StreamSpec
from bridge.permissions import covers

_NAME_IN_USE: Final = 10058


def bucket_stream(spec: BucketSpec) -> StreamSpec:
    """The stream that is a bucket, by the conventions of NATS' key/value store (ADR-8)."""
    ttl_ms = spec.ttl_ms or 0
    return StreamSpec(
        name=f"KV_{spec.name}",
        subjects=(f"$KV.{spec.name}.>",),
        duplicate_window_ms=min(ttl_ms, 120_000) or 120_000,
        max_age_ms=ttl_ms,
        max_bytes=spec.max_bytes,
    )


async def foreign_owners(js: JetStreamContext, spec: StreamSpec) -> dict[str, str]:
    """The subjects of ``spec`` that streams of other names hold already → those streams."""
    owners: dict[str, str] = {}
    for subject in spec.subjects:
        with contextlib.suppress(js_errors.NotFoundError):
            owner = await js.find_stream_name_by_subject(subject)
            if owner != spec.name:
                owners[subject] = owner
    return owners


async def ensure(
    js: JetStreamContext,
    spec: StreamSpec,
    foreign: dict[str, str],
    replicas: int,
    *,
    is_bucket: bool,
) -> tuple[api.StreamInfo | None, bool]:
    """The stream of this name as it is now, made or widened (then True, too); None where others hold every subject."""
    own = tuple(subject for subject in spec.subjects if subject not in foreign)
    if not own:
        return None, False
    spec = replace(spec, subjects=own)
    try:
        info = await js.stream_info(spec.name)
    except js_errors.NotFoundError:
        try:
            made = await js.add_stream(_stream_config(spec, replicas, is_bucket=is_bucket))
            return made, False
        except js_errors.APIError as error:
            if error.err_code != _NAME_IN_USE:
                raise
            info = await js.stream_info(spec.name)  # made meanwhile, by another configuration
    return await _widen(js, info, spec)


async def _widen(
    js: JetStreamContext, info: api.StreamInfo, spec: StreamSpec
) -> tuple[api.StreamInfo, bool]:
    config = info.config
    wider: dict[str, Any] = {}
    if milliseconds(config.duplicate_window) < spec.duplicate_window_ms:
        wider["duplicate_window"] = spec.duplicate_window_ms / 1000
    if config.max_age and (spec.max_age_ms == 0 or milliseconds(config.max_age) < spec.max_age_ms):
        wider["max_age"] = spec.max_age_ms / 1000
    # A stream takes no overlapping subjects: what a wider one covers goes, what one covers is there already.
    held = config.subjects or []
    if missing := [s for s in spec.subjects if not any(covers(have, s) for have in held)]:
        kept = [have for have in held if not any(covers(s, have) for s in missing)]
        wider["subjects"] = [*kept, *missing]
    if not wider:
        return info, False
    return await js.update_stream(replace(config, **wider)), True


def _stream_config(spec: StreamSpec, replicas: int, *, is_bucket: bool) -> api.StreamConfig:
    config = api.StreamConfig(
        name=spec.name,
        subjects=list(spec.subjects),
        retention=api.RetentionPolicy.LIMITS,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_age=spec.max_age_ms / 1000,
        max_bytes=spec.max_bytes,
        duplicate_window=spec.duplicate_window_ms / 1000,
        num_replicas=replicas,
    )
    if is_bucket:
        config = replace(
            config,
            max_msgs_per_subject=1,
            allow_rollup_hdrs=True,
            deny_delete=True,
            # What decides is read through the leader; direct gets on R3 were stale now and then.
            allow_direct=False,
        )
    return config


def milliseconds(seconds: float | None) -> int:
    """A duration as NATS' client has it (None: none) in the unit of the specs."""
    return round((seconds or 0) * 1000)
