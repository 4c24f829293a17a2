"""Each once: whether every usage event that a client was told of is in the stream, where it was told, and none twice.

wrk writes down the body of every 2xx of the loads ``usage`` and ``batch`` (``response`` in wrk/common.lua), of warm-up
and rounds alike. An event's ids hold the run that made it, so that events which were stored and never answered for
(those under way when a run ended) are counted, too.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
from nats.js.api import AckPolicy, ConsumerConfig

STREAM: Final = "BEAMLINE_USAGE"
_ID: Final = re.compile(rb'"assignment_id": ?"a-([^"]+)"')
_FETCHED: Final = 2_000

Stored = Mapping[str, list[int]]
"""An event's id → the sequences at which the stream holds it."""


@dataclass(frozen=True)
class Verdict:
    """Counts of events. ``acknowledged``: told to a client as stored. ``stored``: in the stream; more, by what was
    under way when a run ended. ``lost``: acknowledged, and not at the sequence that the answer named."""

    acknowledged: int
    stored: int
    twice: int
    lost: int

    @property
    def figures(self) -> dict[str, list[float]]:
        """As results hold it."""
        return {name: [float(value)] for name, value in vars(self).items()}


def judge(receipts: Iterable[tuple[str, int]], runs: Iterable[str], stored: Stored) -> Verdict:
    """Compare what was told (id, sequence) with what the stream holds of these runs."""
    told = list(receipts)
    ours = set(runs)
    places = {id: found for id, found in stored.items() if id.partition("-")[0] in ours}
    return Verdict(
        acknowledged=len(told),
        stored=sum(map(len, places.values())),
        twice=sum(len(found) - 1 for found in places.values()),
        lost=sum(sequence not in places.get(id, ()) for id, sequence in told),
    )


class Ledger:
    """What the clients of one cell were told: wrk's files in ``folder``, one a run and thread."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder

    def verdict(self, stored: Stored) -> Verdict:
        """After the last run."""
        files = sorted(self.folder.iterdir())
        told = [receipt for file in files for receipt in _receipts(file)]
        return judge(told, {file.name.partition("-")[0] for file in files}, stored)


def _receipts(file: Path) -> Iterable[tuple[str, int]]:
    with file.open() as lines:
        for line in lines:
            answer = json.loads(line)
            for event in answer.get("results", [answer]):
                if event.get("emitted") or event.get("outcome") == "accepted":
                    yield event["usage_id"].removeprefix("u-"), event["seq"]


def read_stream(url: str) -> Stored:
    """Every usage event that the stream holds."""
    return asyncio.run(_read_stream(url))


async def _read_stream(url: str) -> Stored:
    client = await nats.connect(url)
    js = client.jetstream()
    last = (await js.stream_info(STREAM)).state.last_seq
    stored: dict[str, list[int]] = defaultdict(list)
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=60.0)
    subscription = await js.pull_subscribe("", stream=STREAM, config=config)
    sequence = 0
    while sequence < last:
        for message in await subscription.fetch(_FETCHED, timeout=10.0):
            sequence = message.metadata.sequence.stream
            if found := _ID.search(message.data):
                stored[found[1].decode()].append(sequence)
    await client.close()
    return stored
