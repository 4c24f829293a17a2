"""What is compared: the groups of cells, and the servers that they are of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench.each_once import Ledger, Stored, read_stream
from tests.bench.limits import bare
from tests.bench.results import Measured, Settings
from tests.bench.rounds import AT_ONCE, Cell, in_turns
from tests.bench.site import Server, Site, running
from tests.bench.wrk_load import Sample, measure

Start = Callable[[Site], Server]


def _with_workers(count: int) -> Start:
    return lambda site: site.gateway(
        f"gateway-{count}w",
        OTEL_EXPORTER_OTLP_ENDPOINT=site.collector,
        WEB_CONCURRENCY=str(count),
    )


WORKERS: Final = (1, 2, 3, 4)
SERVERS: Final[dict[str, Start]] = {
    "gateway": lambda site: site.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=site.collector),
    "gateway-untraced": lambda site: site.gateway("gateway-untraced"),
    "gateway-1%": lambda site: site.gateway(
        "gateway-1%",
        OTEL_EXPORTER_OTLP_ENDPOINT=site.collector,
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0.01",
    ),
    "gateway-headers": lambda site: site.gateway(
        "gateway-headers",
        OTEL_EXPORTER_OTLP_ENDPOINT=site.collector,
        AUTH_MODE="headers",
        TRUSTED_PROXIES="127.0.0.1",
    ),
    "gateway-unpinned": lambda site: site.gateway(
        "gateway-unpinned",
        OTEL_EXPORTER_OTLP_ENDPOINT=site.collector,
        GATEWAY_PIN_WORKERS="off",
    ),
    "gateway-bare": lambda site: site.gateway(
        "gateway-bare", AUTH_MODE="headers", TRUSTED_PROXIES="127.0.0.1", LOG_LEVEL="warning"
    ),
    "fastapi": lambda site: site.fastapi(
        OTEL_EXPORTER_OTLP_ENDPOINT=site.collector, OTEL_SEMCONV_STABILITY_OPT_IN="http"
    ),
    "fastapi-untraced": lambda site: site.fastapi("fastapi-untraced"),
    "hello": lambda site: site.gunicorn("hello", "tests.bench.peers.hello:app"),
    "naive": lambda site: site.gunicorn("naive", "tests.bench.peers.naive_flask:app"),
    **{f"gateway-{count}w": _with_workers(count) for count in WORKERS},
}
"""How each server is started. ``gateway`` has everything on: key, roles, schema, claims, sessions, metrics, every
request traced to a live collector, an access line; ``gateway-bare`` has off what can be; ``gateway-3w`` has three
workers."""

_PEERS: Final = ("gateway", "fastapi", "gateway-untraced", "fastapi-untraced", "hello")

GROUPS: Final[dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]]] = {
    "decide": tuple((server, "decide", (8, 32)) for server in _PEERS),
    "usage": tuple((server, "usage", (8, 32)) for server in _PEERS[:4]),
    "parts": (
        ("gateway", "decide", (32,)),
        ("gateway", "decide-plain", (32,)),
        ("gateway-1%", "decide", (32,)),
        ("gateway-headers", "decide", (32,)),
        ("gateway-bare", "decide-plain", (32,)),
        ("naive", "decide", (8,)),
    ),
    "local": (
        ("gateway-1%", "replay", (32,)),
        ("gateway-1%", "denied", (32,)),
        ("gateway", "replay", (32,)),
        ("gateway", "denied", (32,)),
        ("hello", "decide", (32,)),
    ),
    "publish": (
        ("gateway", "usage", (32,)),
        ("gateway", "batch", (8,)),
        ("gateway", "assignments", (32,)),
        ("gateway", "decide-id", (32,)),
        ("nats", "request", (32,)),
        ("nats", "publish", (32,)),
    ),
}
"""What ``make bench`` measures. Servers of a group run at once; an idle one costs next to nothing."""

FULL: Final[dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]]] = {
    **GROUPS,
    "connections": tuple(
        (server, load, (1, 128))
        for server in ("gateway", "fastapi", "hello")
        for load in ("decide", "usage")
        if not (server == "hello" and load == "usage")
    ),
    "pinning": (("gateway", "decide", (32,)), ("gateway-unpinned", "decide", (32,))),
    "ids": tuple(("gateway", load, (1, 8, 128)) for load in ("decide-id", "assignments", "batch")),
    "workers": tuple(
        (f"gateway-{count}w", load, (AT_ONCE,)) for load in ("decide", "usage") for count in WORKERS
    ),
}
"""The rest of ``make bench-full`` that is groups; `tests.bench.growth` and its siblings have what is none."""

_TOLD: Final = ("usage", "batch")
"""Loads whose answers are held against the stream."""


def measured(group: str, settings: Settings) -> dict[str, Measured]:
    """Start a group's servers and measure its cells in turns."""
    with running() as site:
        wanted = dict.fromkeys(server for server, _, _ in FULL[group] if server in SERVERS)
        servers = {name: SERVERS[name](site) for name in wanted}
        return in_turns(cells(site, servers, group), settings)


def cells(site: Site, servers: dict[str, Server], group: str) -> list[Cell]:
    """The cells of a group, over its running servers."""

    @functools.cache
    def stored() -> Stored:
        return read_stream(site.nats.url)

    def cell(server: str, load: str, connections: int) -> Cell:
        if server not in servers:
            run = partial(_bare, site.nats.url, load, connections)
            return Cell(group, server, load, connections, run)
        if load not in _TOLD:
            run = partial(_loaded, site, servers[server], load, connections, None)
            return Cell(group, server, load, connections, run)
        ledger = Ledger(site.folder / f"told-{group}-{server}-{load}-{connections}")
        run = partial(_loaded, site, servers[server], load, connections, ledger.folder)
        return Cell(
            *(group, server, load, connections, run),
            figures=lambda: ledger.verdict(stored()).figures,
        )

    return [
        cell(server, load, connections)
        for server, load, counts in FULL[group]
        for connections in counts
    ]


def _bare(url: str, load: str, connections: int, seconds: float) -> Sample:
    return bare(url, load, at_once=connections, seconds=seconds)


def _loaded(
    site: Site, server: Server, load: str, connections: int, receipts: Path | None, seconds: float
) -> Sample:
    denied = load == "denied"
    return measure(
        server,
        "usage" if denied else load,
        key=site.weak_key if denied else site.key,
        connections=connections,
        seconds=seconds,
        headers=server.name in ("gateway-headers", "gateway-bare"),
        receipts=receipts,
    )
