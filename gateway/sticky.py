"""Sticky sessions: a tenant's session stays with the provider that took it first.

The mapping lives in the bucket ``BEAMLINE_STICKY``; its TTL counts from when it was made or moved, hits do not extend
it, and its expiry is the server's. The session is claimed before the Router is asked, so that of many first requests
one asks freely and the others wait for its provider::

    first     create claim ──▶ ask freely ──▶ bind the provider (compare-and-set)         miss
    second        finds the claim, waits ─────────▶ finds the provider ──▶ ask with it    hit
    later         finds the provider ──▶ ask with it ──▶ another one answers ──▶ move     moved, generation + 1

Whoever waits longer than a moment asks freely on its own. With the bucket out of reach a decide works without
stickiness and says so: no error of the bucket ever fails a decide, and none is remembered.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

from cachetools import TTLCache

from bridge import BridgeError, Bus, Entry, Refusal, Refused
from gateway import json
from gateway.idempotency import digest

BUCKET: Final = "BEAMLINE_STICKY"
PREFERRED: Final = "preferred_provider_id"
_LOCAL_SECONDS: Final = 1.0
"""How long a worker's own copy of a mapping is good without asking the bucket again."""
_LOCAL_ENTRIES: Final = 50_000
_PATIENCE_SECONDS: Final = 2.0
"""How long a second request waits for the first one's provider."""
_SHARE: Final = 0.4
"""What waiting for a mapping may take of the remaining time; the rest is the Router's, but for this:"""
_ANSWER_SHARE: Final = 0.1
_ANSWER_SECONDS: Final = 0.5
"""What the bucket's answers may take beyond the patience. Without it a last look that began in time would end as
"unavailable", although the bucket is there."""
_WRITE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 0.01
_LONGEST_SESSION: Final = 512


class Stickiness(StrEnum):
    """What happened, as ``X-Sticky`` says it."""

    HIT = "hit"
    MISS = "miss"
    MOVED = "moved"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Binding:
    """What the bucket holds for a session: ``provider`` is None while the first request is under way, and
    ``reason`` is why the Router chose it."""

    provider: str | None
    generation: int
    reason: str
    claim: str

    def encode(self) -> bytes:
        """As it is stored."""
        return json.dumps(
            {
                "provider": self.provider,
                "generation": self.generation,
                "reason": self.reason,
                "claim": self.claim,
            }
        )

    @classmethod
    def decode(cls, value: bytes) -> Self | None:
        """None for what is no binding: it is treated as one that another request is making."""
        try:
            raw = json.loads(value)
            provider, generation = raw["provider"], raw["generation"]
            reason, claim = raw["reason"], raw["claim"]
        except (ValueError, KeyError, TypeError):
            return None
        named = provider is None or (isinstance(provider, str) and provider != "")
        return (
            cls(provider, generation, reason, claim) if named and type(generation) is int else None
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Where a session stands before the Router is asked. ``claimed``: this request made the claim."""

    stickiness: Stickiness
    binding: Binding | None = None
    revision: int = 0
    claimed: bool = False

    @property
    def preferred(self) -> str | None:
        """The provider to ask for."""
        return self.binding.provider if self.binding else None


def session_key(tenant_id: str, field: str, context: Mapping[str, Any]) -> str | None:
    """The key of the session that a request's ``context`` names in ``field``; None if it names none.

    The field's name is part of it, so that another ``STICKY_SESSION_KEY`` always starts new mappings.
    """
    value = context.get(field)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_SESSION:
        return None
    return digest("sticky", tenant_id, field, value)


class Sessions:
    """The bindings as one worker sees them. Used on the bridge's loop only."""

    def __init__(self) -> None:
        self._local: TTLCache[str, Found] = TTLCache(
            _LOCAL_ENTRIES, _LOCAL_SECONDS, timer=time.monotonic
        )
        self._releasing: set[asyncio.Task[None]] = set()

    async def find(self, bus: Bus, key: str, deadline: float) -> Found:
        """The session's provider, or the right to ask freely. Never raises the bridge's errors."""
        known: Found | None = self._local.get(key)
        if known is not None:
            return known
        now = time.monotonic()
        remaining = deadline - now
        patience_ends = now + min(_PATIENCE_SECONDS, remaining * _SHARE)
        answered_by = patience_ends + min(_ANSWER_SECONDS, remaining * _ANSWER_SHARE)
        try:
            found = await _claim_or_wait(bus, key, patience_ends, answered_by)
        except BridgeError:
            return Found(Stickiness.UNAVAILABLE)
        if found.stickiness is Stickiness.HIT:
            self._local[key] = found
        return found

    async def settle(
        self, bus: Bus, key: str, found: Found, provider: str, reason: str, deadline: float
    ) -> Stickiness:
        """Write down which provider answered; what ``X-Sticky`` says. Never raises the bridge's errors.

        Of several that bind or move one session at once the first counts: the others' answers stay what they are,
        and their next request goes where the first one went.
        """
        if found.stickiness is Stickiness.UNAVAILABLE or found.preferred == provider:
            return found.stickiness
        self._local.pop(key, None)
        generation = found.binding.generation if found.binding else 0
        if found.preferred is not None:
            generation += 1
        binding = Binding(provider, generation, reason, random.randbytes(8).hex())
        until = min(deadline, time.monotonic() + _WRITE_SECONDS)
        try:
            if not await _write(bus, key, binding, found.revision, until):
                # Expired meanwhile, under a Router slower than the TTL? A key that was dropped is not at revision 0.
                await _write(bus, key, binding, 0, until)
        except BridgeError:
            return Stickiness.UNAVAILABLE
        return Stickiness.MISS if found.preferred is None else Stickiness.MOVED

    def release(self, bus: Bus, key: str, found: Found) -> None:
        """Give a claim back when the Router named no provider, without making anybody wait for it."""
        if not found.claimed:
            return

        async def give_back() -> None:
            until = time.monotonic() + _WRITE_SECONDS
            # If it fails, those who wait lose patience, and the claim ends with its TTL.
            with contextlib.suppress(BridgeError):
                await bus.bucket(BUCKET).delete(key, revision=found.revision, deadline=until)

        task = asyncio.get_running_loop().create_task(give_back())
        self._releasing.add(task)
        task.add_done_callback(self._releasing.discard)


async def _write(bus: Bus, key: str, binding: Binding, revision: int, deadline: float) -> bool:
    """Compare-and-set; False when the key is not at ``revision``."""
    try:
        await bus.bucket(BUCKET).update(key, binding.encode(), revision, deadline=deadline)
    except Refused as error:
        if error.reason is not Refusal.REVISION:
            raise
        return False
    return True


async def _claim_or_wait(bus: Bus, key: str, patience_ends: float, answered_by: float) -> Found:
    bucket = bus.bucket(BUCKET)
    claim = Binding(None, 0, "", random.randbytes(8).hex())
    seen: Found | None = None
    while True:
        try:
            entry = await bucket.get(key, deadline=answered_by)
        except BridgeError:
            if seen is None or time.monotonic() < patience_ends:
                raise
            return seen  # the last look took too long; the bucket answered a moment ago
        if entry is None:
            try:
                revision = await bucket.create(key, claim.encode(), deadline=answered_by)
                return Found(Stickiness.MISS, claim, revision, claimed=True)
            except Refused as error:
                if error.reason is not Refusal.REVISION:
                    raise
                continue
        found = _read(entry, claim)
        if found.stickiness is Stickiness.HIT or found.claimed:
            return found
        left = patience_ends - time.monotonic()
        if left <= 0:
            return found  # ask freely, and bind if nobody has
        seen = found
        await asyncio.sleep(min(left, _PAUSE_SECONDS * random.uniform(1.0, 3.0)))


def _read(entry: Entry, claim: Binding) -> Found:
    binding = Binding.decode(entry.value)
    if binding is not None and binding.provider is not None:
        return Found(Stickiness.HIT, binding, entry.revision)
    # A create that was cut off by a lost connection and repeated finds its own claim.
    mine = binding is not None and binding.claim == claim.claim
    return Found(Stickiness.MISS, binding, entry.revision, claimed=mine)
