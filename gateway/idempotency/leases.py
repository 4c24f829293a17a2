"""Leases: for effects that are calls, one call in flight at a time, and its outcome for everybody.

::

    owner     create in_progress ──▶ call ──▶ store outcome (compare-and-set) ──▶ answer
    second        finds in_progress, waits ─────────▶ sees the outcome ─────────▶ same answer, replayed
    third         its deadline comes first ──▶ 409 in_progress, Retry-After

    owner     create in_progress ──▶ call ──▶ (stalls, or dies)
    second        has seen the record unchanged for a whole lease ──▶ takes over (compare-and-set) ──▶ call ──▶ …
    owner                                    (wakes up) store: refused, the revision moved ──▶ answers the second's

A lease is longer than any deadline, and an observer measures it on its own monotonic clock from when it first saw the
record at that revision: no clocks are compared. What an outcome becomes is said by its `Keep`:

=========  ==========================================  ==========================================
OUTCOME    of                                          a later equal request
=========  ==========================================  ==========================================
REPLAY     2xx; 404 of a policy or extension           gets it, until the record expires
SHARE      other 4xx of the Router                     asks again (those waiting meanwhile got it)
RELEASE    5xx, unreadable reply, silence, not sent    asks again
=========  ==========================================  ==========================================
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from cachetools import LRUCache

from bridge import BridgeError, Bus, NotSent, Refusal, Refused, Unknown
from gateway.idempotency.claims import Conflict, Held, claim, find
from gateway.idempotency.records import BUCKET, Outcome, Record, State

_log = logging.getLogger(__name__)
_FIRST_PAUSE_SECONDS: Final = 0.02
_LONGEST_PAUSE_SECONDS: Final = 0.25
_ENDING_SECONDS: Final = 2.0
_OBSERVED_AT_MOST: Final = 50_000


class Keep(Enum):
    """What becomes of an outcome; see the module's docstring."""

    REPLAY = auto()
    SHARE = auto()
    RELEASE = auto()


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a call, and what becomes of it."""

    outcome: Outcome
    keep: Keep


class InProgress(Exception):
    """An equal request is still at work, and this one's time is over."""


@dataclass(frozen=True, slots=True)
class Settled:
    """An answer: ``held.mine`` if this request's own call made it."""

    outcome: Outcome
    keep: Keep
    held: Held


class Leases:
    """What this process has seen of others' calls. Used on the bridge's loop only."""

    def __init__(
        self, lease_seconds: float, on_taken_over: Callable[[], object] = lambda: None
    ) -> None:
        self._lease_seconds = lease_seconds
        self._on_taken_over = on_taken_over
        # Without an end: a client that asks seldom must still find its second look to be one. The claim's random
        # name keeps apart what has the same revision in a bucket that was made anew.
        self._seen: LRUCache[tuple[str, int], float] = LRUCache(_OBSERVED_AT_MOST)
        self._ending: set[asyncio.Task[None]] = set()

    async def call(
        self,
        bus: Bus,
        key: str,
        wanted: Record,
        effect: Callable[[], Awaitable[Verdict]],
        deadline: float,
    ) -> Settled:
        """Run ``effect`` if the id is free, else wait for the outcome of whoever runs it.

        Raises Conflict, InProgress, what ``effect`` raises, and the errors of the bridge.
        """
        held = await claim(bus, key, wanted, deadline)
        followed: str | None = None
        pause = _FIRST_PAUSE_SECONDS
        while True:
            record = held.record
            if held.mine:
                settled = await self._own(bus, key, held, effect, deadline)
                if settled is not None:
                    return settled
            elif record.state is State.DONE and record.outcome is not None:
                return Settled(record.outcome, Keep.REPLAY, held)
            elif record.state is State.RELEASED:
                if record.outcome is not None and record.claim_id == followed:
                    return Settled(record.outcome, Keep.SHARE, held)
                if (mine := await self._take_over(bus, key, held, wanted, deadline)) is not None:
                    held = mine
                    continue
            else:
                followed = record.claim_id
                if self._expired(record.claim_id, held.revision):
                    mine = await self._take_over(bus, key, held, wanted, deadline)
                    if mine is not None:
                        held = mine
                        continue
                if time.monotonic() + pause >= deadline:
                    raise InProgress
                await asyncio.sleep(pause * random.uniform(0.75, 1.0))
                pause = min(pause * 1.5, _LONGEST_PAUSE_SECONDS)
            held = await self._look_again(bus, key, wanted, deadline)

    async def _own(
        self,
        bus: Bus,
        key: str,
        held: Held,
        effect: Callable[[], Awaitable[Verdict]],
        deadline: float,
    ) -> Settled | None:
        """Run the call and store what became of it; None when another one took over meanwhile."""
        try:
            verdict = await effect()
        except BaseException:
            self._end_later(bus, key, held, State.RELEASED, None)
            raise
        if verdict.keep is Keep.REPLAY:
            return await self._store(bus, key, held, verdict, deadline)
        shared = verdict.outcome if verdict.keep is Keep.SHARE else None
        self._end_later(bus, key, held, State.RELEASED, shared)
        return Settled(verdict.outcome, verdict.keep, held)

    async def _store(
        self, bus: Bus, key: str, held: Held, verdict: Verdict, deadline: float
    ) -> Settled | None:
        """Keep the outcome for everybody; None when another one took over meanwhile."""
        done = held.record.ended(State.DONE, verdict.outcome)
        try:
            stored = await _write(bus, key, done, held.revision, deadline)
            if stored is None and await find(bus, key, deadline) is None:
                # The record's time was shorter than the call. Its outcome is kept all the same: an owner that
                # looked for the record again would find the id free, and call a second time.
                made = await claim(bus, key, done, deadline)
                stored = made if made.mine else None
        except Conflict:  # the id has become another request's
            return Settled(verdict.outcome, Keep.RELEASE, held)
        except Refused:  # too large to be kept
            self._end_later(bus, key, held, State.RELEASED, None)
            raise
        except BaseException as error:
            # The time is over or NATS away: those who come next should find the outcome, not wait for the lease.
            self._end_later(bus, key, held, State.DONE, verdict.outcome)
            if isinstance(error, NotSent):  # the outcome was not, but the call was
                raise Unknown(
                    "the call was answered, but its outcome could not be stored"
                ) from error
            raise
        return None if stored is None else Settled(verdict.outcome, verdict.keep, stored)

    async def _take_over(
        self, bus: Bus, key: str, held: Held, wanted: Record, deadline: float
    ) -> Held | None:
        taken = await _write(bus, key, wanted, held.revision, deadline)
        if taken is not None and held.record.state is State.IN_PROGRESS:
            self._on_taken_over()
            _log.warning("an owner did not finish within its lease; taken over")
        return taken

    async def _look_again(self, bus: Bus, key: str, wanted: Record, deadline: float) -> Held:
        found = await find(bus, key, deadline)
        if found is None:  # expired meanwhile: the id is free
            return await claim(bus, key, wanted, deadline)
        if found.record.holds_id_against(wanted):
            raise Conflict
        return found

    def _expired(self, claim_id: str, revision: int) -> bool:
        now = time.monotonic()
        return now - self._seen.setdefault((claim_id, revision), now) >= self._lease_seconds

    def _end_later(
        self, bus: Bus, key: str, held: Held, state: State, outcome: Outcome | None
    ) -> None:
        """End the record without making the caller wait: its deadline may be over. If this fails, the lease ends."""

        async def end() -> None:
            record = held.record.ended(state, outcome)
            try:
                await _write(bus, key, record, held.revision, time.monotonic() + _ENDING_SECONDS)
            except BridgeError as error:
                _log.warning("a call's record could not be ended, its lease must be: %s", error)

        task = asyncio.get_running_loop().create_task(end())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _write(bus: Bus, key: str, record: Record, revision: int, deadline: float) -> Held | None:
    """Compare-and-set; None when the revision had moved and what is there is not this very record."""
    bucket = bus.bucket(BUCKET)
    asked_at = time.monotonic()
    try:
        new = await bucket.update(key, record.encode(), revision, deadline=deadline)
    except Refused as error:
        if error.reason is not Refusal.REVISION:
            raise
        # A write that was cut off by a lost connection and repeated is refused by itself.
        found = await find(bus, key, deadline)
        if found is None or found.record != record:
            return None
        new = found.revision
    expires_at = None if bucket.ttl_ms is None else asked_at + bucket.ttl_ms / 1000
    return Held(record, new, True, expires_at)
