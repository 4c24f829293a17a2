"""How things grow: from a thousand to a million live claims and sessions, from one to a thousand tenants.

Each compares few with many in turns, both under the same load at `AT_ONCE` connections, everything on. Few and many
have a NATS server each; before each run of it, the bucket with few is emptied and filled anew, since what a run adds
would soon be more than what is to be compared.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import click

from gateway.identity.keys import ApiKey, encode, new_key
from tests.bench import filling
from tests.bench.filling import Filling
from tests.bench.results import Measured, Settings
from tests.bench.rounds import AT_ONCE, Cell, in_turns
from tests.bench.site import Server, Site, running
from tests.bench.wrk_load import Sample, measure

FEW: Final = 1_000
MANY: Final = 1_000_000
TENANTS: Final = 1_000
NAMED: Final = 10
"""Tenants with a label value of their own."""
_TTL_MS: Final = str(2 * 3_600_000)
"""Nothing that was filled in expires while it is measured."""


def claims(settings: Settings) -> dict[str, Measured]:
    """Claims of usage events and of decides with an id, beside so many live ones."""
    return _few_and_many("claims", filling.claims(_now_ms()), ("usage", "decide-id"), (), settings)


def sessions(settings: Settings) -> dict[str, Measured]:
    """Decides of sessions that a worker knows, and of new ones; of any of the many, which are all looked up."""
    loads = ("session-known", "session-new")
    return _few_and_many("sessions", filling.sessions(), loads, ("session-any",), settings)


def _few_and_many(
    part: str,
    content: Filling,
    loads: Sequence[str],
    with_many: Sequence[str],
    settings: Settings,
) -> dict[str, Measured]:
    counts = {"few": FEW, "many": max(FEW, round(MANY * settings.scale))}
    with contextlib.ExitStack() as stack:
        cells = []
        for size, count in counts.items():
            site = stack.enter_context(running())
            server = site.gateway(
                f"gateway-{size}",
                OTEL_EXPORTER_OTLP_ENDPOINT=site.collector,
                IDEMPOTENCY_TTL_MS=_TTL_MS,
                STICKY_TTL_MS=_TTL_MS,
            )
            seconds = filling.refill(site.nats.url, content, count)
            click.echo(f"{count:,} entries in {content.bucket} after {seconds:.0f} s", err=True)
            again = partial(_again, site, content, count if size == "few" else None)
            cells += [
                Cell(
                    part,
                    server.name,
                    load,
                    AT_ONCE,
                    partial(_live_load, site, server, load, count),
                    again,
                    partial(_live, site, content.bucket, count),
                )
                for load in (*loads, *(with_many if size == "many" else ()))
            ]
        return in_turns(cells, settings)


def _again(site: Site, content: Filling, count: int | None) -> None:
    if count is not None:
        filling.refill(site.nats.url, content, count)


def _live_load(site: Site, server: Server, load: str, count: int, seconds: float) -> Sample:
    return measure(
        server,
        load,
        key=site.key,
        connections=AT_ONCE,
        seconds=seconds,
        given={"BENCH_LIVE": str(count)},
    )


def _live(site: Site, bucket: str, count: int) -> Mapping[str, list[float]]:
    """What was filled in, and what the bucket holds after all rounds: what they added has come to it."""
    return {"filled": [count], "live_at_the_end": [filling.live(site.nats.url, bucket)]}


def tenants(settings: Settings) -> dict[str, Measured]:
    """Decides and usage events of one tenant, and of a thousand with a key each, some with a label of their own."""
    with running() as site:
        known = _keys_of(range(TENANTS))
        keys_file = site.folder / "tenants.json"
        keys_file.write_bytes(encode({key.digest: key for key in known.values()}))
        server = site.gateway(
            "gateway-tenants",
            OTEL_EXPORTER_OTLP_ENDPOINT=site.collector,
            APIKEYS_FILE=str(keys_file),
            METRICS_TENANT_LABEL_ALLOWLIST=",".join(f"t-{n}" for n in range(NAMED)),
        )
        cells = []
        for count in (1, TENANTS):
            file = site.folder / f"keys-of-{count}"
            file.write_text("\n".join(list(known)[:count]) + "\n")
            cells.append(
                Cell(
                    "tenants",
                    f"gateway-{count}",
                    "tenants",
                    AT_ONCE,
                    partial(_tenant_load, server, file),
                    figures=partial(_labels, server, count),
                )
            )
        return in_turns(cells, settings)


def _tenant_load(server: Server, keys: Path, seconds: float) -> Sample:
    return measure(
        server,
        "tenants",
        key="",
        connections=AT_ONCE,
        seconds=seconds,
        given={"BENCH_KEYS": str(keys)},
    )


def _keys_of(numbers: range) -> dict[str, ApiKey]:
    """A key for each tenant ``t-<number>``: what a caller shows → what is kept."""
    return {
        key: ApiKey.of(key, tenant_id=f"t-{number}", roles=("service",))
        for number, key in ((number, new_key()) for number in numbers)
    }


def _labels(server: Server, count: int) -> Mapping[str, list[float]]:
    """How many values the label ``tenant`` has, and the most that it may have: those named, and ``other``."""
    return {
        "tenants": [count],
        "tenant_labels": [len(set(tenant_labels(server)))],
        "tenant_labels_at_most": [NAMED + 1],
    }


def tenant_labels(server: Server) -> Iterator[str]:
    """The values of the label ``tenant`` in ``/metrics``, with repeats."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    return (found[1] for found in re.finditer(r'[{,]tenant="([^"]*)"', text))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
