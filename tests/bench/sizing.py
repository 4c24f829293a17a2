"""The sizing model: what a load needs of gateways and NATS. ``python -m tests.bench.sizing`` prints the table of
docs/SIZING.md, ``--write`` puts it there, ``--measure`` measures the unit costs of NATS, ``--simulate`` plays two days.

The model multiplies; the simulation does not: it lets ids come in second by second, repeat, and expire, and counts what
is alive. A test holds the two against each other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import nats
from nats.js.api import KeyValueConfig

from gateway.devstack.nats_server import NatsServer

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "SIZING.md"
_BEGIN, _END = "<!-- sizing -->", "<!-- /sizing -->"
_DAY: Final = 86_400
_GIB: Final = 1 << 30


@dataclass(frozen=True)
class Costs:
    """What a unit costs, as measured; times in CPU µs of a gateway's worker, sizes in bytes of one NATS node."""

    decide_us: float
    publish_us: float
    repeat_us: float
    id_memory: float
    claim_disk: float
    claim_memory: float
    message_disk: float
    stores_per_second: float


MEASURED: Final = Costs(
    decide_us=750,
    publish_us=950,
    repeat_us=600,
    id_memory=400,
    claim_disk=380,
    claim_memory=350,
    message_disk=440,
    stores_per_second=38_000,
)
"""From `make bench` (traced; two cores) and ``--measure`` (nats-server, file storage, one node)."""


@dataclass(frozen=True)
class Load:
    """Requests a second, and what share of them is what; times in seconds. ``busy``: how much of what it could do a
    gateway's core, or a stream, is planned to do."""

    per_second: float
    decides: float = 0.4
    usage: float = 0.3
    assignments: float = 0.1
    repeats: float = 0.2
    ttl: float = 300
    exec_window: float = 360
    usage_window: float = _DAY
    usage_kept: float = 7 * _DAY
    busy: float = 0.6

    @property
    def claims_per_second(self) -> float:
        """New ids a second."""
        return self.per_second * (self.usage + self.assignments)


@dataclass(frozen=True)
class Needs:
    """What a load needs: cores of gateways; memory and disk of NATS in bytes, of one copy. ``shards``: clusters that
    share the load by tenant."""

    cores: int
    live_claims: int
    window_ids: int
    memory: float
    claims_disk: float
    usage_disk: float
    stores_per_second: float
    shards: int


def needs(load: Load, costs: Costs = MEASURED) -> Needs:
    """The model. A claim is one store, its message another; a stream takes so many a second."""
    cpu_us = load.per_second * (
        load.decides * costs.decide_us
        + (load.usage + load.assignments) * costs.publish_us
        + load.repeats * costs.repeat_us
    )
    claims = load.claims_per_second
    live = claims * load.ttl
    ids = (
        load.per_second * load.assignments * load.exec_window
        + load.per_second * load.usage * load.usage_window
    )
    stores = 2 * claims
    return Needs(
        cores=math.ceil(cpu_us / 1e6 / load.busy),
        live_claims=round(live),
        window_ids=round(ids),
        memory=ids * costs.id_memory + live * costs.claim_memory,
        claims_disk=live * costs.claim_disk,
        usage_disk=load.per_second * load.usage * load.usage_kept * costs.message_disk,
        stores_per_second=stores,
        # The busiest stream: every claim is stored in one bucket.
        shards=max(1, math.ceil(claims / (costs.stores_per_second * load.busy))),
    )


def simulate(load: Load, seconds: int, seed: int = 1) -> tuple[int, int]:
    """The most claims and the most ids of usage alive at once, played second by second.

    Arrivals are Poisson's; a repeat asks for an id of the last minute, claims nothing and extends nothing.
    """
    chance = random.Random(seed)
    claims: deque[tuple[int, int]] = deque()
    usage: deque[tuple[int, int]] = deque()
    alive = metered = most_alive = most_metered = 0
    for now in range(seconds):
        new_usage = _poisson(chance, load.per_second * load.usage)
        new = new_usage + _poisson(chance, load.per_second * load.assignments)
        claims.append((now, new))
        usage.append((now, new_usage))
        alive, metered = alive + new, metered + new_usage
        while claims and claims[0][0] <= now - load.ttl:
            alive -= claims.popleft()[1]
        while usage and usage[0][0] <= now - load.usage_window:
            metered -= usage.popleft()[1]
        most_alive, most_metered = max(most_alive, alive), max(most_metered, metered)
    return most_alive, most_metered


def table(costs: Costs = MEASURED) -> str:
    """The loads of the document, in Markdown."""
    lines = [
        "| requests/s | claims a day | gateway cores | claims alive | ids in windows | NATS memory | claims on disk"
        " | usage on disk, 7 days | clusters |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for per_second in (100, 1_000, 10_000, 100_000):
        load = Load(per_second)
        found = needs(load, costs)
        cells = (
            f"{per_second:,}",
            _short(load.claims_per_second * _DAY),
            f"{found.cores:,}",
            _short(found.live_claims),
            _short(found.window_ids),
            _bytes(found.memory),
            _bytes(found.claims_disk),
            _bytes(found.usage_disk),
            str(found.shards),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def block(costs: Costs = MEASURED) -> str:
    """The generated part of the document."""
    units = "\n".join(f"| `{name}` | {value:,g} |" for name, value in asdict(costs).items())
    return f"{_BEGIN}\n\n| unit cost | measured |\n|---|--:|\n{units}\n\n{table(costs)}\n\n{_END}"


def written(text: str) -> str:
    """The document with the block as it is now."""
    return re.sub(rf"{_BEGIN}.*?{_END}", lambda _: block(), text, flags=re.DOTALL)


async def measure(count: int) -> dict[str, float]:
    """The unit costs of NATS: ``count`` claims in a bucket, ``count`` messages in a stream that knows their ids."""
    with (
        tempfile.TemporaryDirectory() as folder,
        NatsServer(name="sizing", folder=Path(folder)) as server,
    ):
        client = await nats.connect(server.url)
        js = client.jetstream()
        body, claim = b"u" * 330, b"c" * 300
        kv = await js.create_key_value(KeyValueConfig(bucket="CLAIMS", ttl=3600))
        with _growth(server, Path(folder)) as claims:
            await _all(lambda n: kv.put(f"{n:040x}", claim), count)
        await js.add_stream(name="USAGE", subjects=["usage"], duplicate_window=_DAY)
        begun = asyncio.get_running_loop().time()
        with _growth(server, Path(folder)) as messages:
            await _all(
                lambda n: js.publish("usage", body, headers={"Nats-Msg-Id": f"usage.{n:040x}"}),
                count,
            )
        seconds = asyncio.get_running_loop().time() - begun
        await client.close()
    return {
        "claim_memory": claims["memory"] / count,
        "claim_disk": claims["disk"] / count,
        "id_memory": messages["memory"] / count,
        "message_disk": messages["disk"] / count,
        "stores_per_second": count / seconds,
    }


async def _all(store, count: int) -> None:  # type: ignore[no-untyped-def]
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await store(number)

    await asyncio.gather(*(work() for _ in range(256)))


@contextlib.contextmanager
def _growth(server: NatsServer, folder: Path) -> Iterator[dict[str, float]]:
    grown: dict[str, float] = {}
    before = _memory(server), _disk(folder)
    yield grown
    grown["memory"], grown["disk"] = _memory(server) - before[0], _disk(folder) - before[1]


def _memory(server: NatsServer) -> float:
    return float(server.varz()["mem"])


def _disk(folder: Path) -> float:
    return float(sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file()))


def _poisson(chance: random.Random, mean: float) -> int:
    """Of large means, where it is a normal distribution."""
    return max(0, round(chance.gauss(mean, math.sqrt(mean))))


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.3g}"


def _bytes(size: float) -> str:
    return f"{size / _GIB:,.3g} GiB" if size >= _GIB else f"{size / (1 << 20):,.3g} MiB"


@click.command()
@click.option("--write", is_flag=True, help="Put the table into docs/SIZING.md.")
@click.option("--measure", "measuring", is_flag=True, help="Measure NATS (a minute).")
@click.option(
    "--simulate", "simulating", is_flag=True, help="Play two days at 100,000 requests a second."
)
def main(write: bool, measuring: bool, simulating: bool) -> None:
    """Print the sizing table."""
    if measuring:
        click.echo(json.dumps(asyncio.run(measure(100_000)), indent=1))
        return
    if simulating:
        load = Load(100_000)
        alive, metered = simulate(load, 2 * _DAY)
        model = needs(load)
        click.echo(f"claims alive: {alive:,} played, {model.live_claims:,} by the model")
        click.echo(
            f"ids of usage: {metered:,} played, {load.per_second * load.usage * _DAY:,.0f} by the model"
        )
        return
    if write:
        DOCUMENT.write_text(written(DOCUMENT.read_text()))
    click.echo(table())


if __name__ == "__main__":
    main()
