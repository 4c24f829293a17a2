"""What is compared: a cell is one server under one load; the cells of a group take turns, to meet the same machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from tests.bench.limits import bare
from tests.bench.site import Server, Site
from tests.bench.wrk_load import Sample, measure

Start = Callable[[Site], Server]


@dataclass(frozen=True)
class Cell:
    """``run`` measures it for so many seconds."""

    group: str
    server: str
    load: str
    connections: int
    run: Callable[[float], Sample]

    @property
    def name(self) -> str:
        """As the report and the targets have it: only cells of one group met the same machine."""
        return f"{self.group} {self.server} {self.load} {self.connections}"


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
}
"""How each server is started. ``gateway`` has everything on: key, roles, schema, claims, sessions, metrics, every
request traced to a live collector, an access line; ``gateway-bare`` has off what can be."""

_PEERS: Final = ("gateway", "fastapi", "gateway-untraced", "fastapi-untraced", "hello")

GROUPS: Final[dict[str, tuple[tuple[str, str, tuple[int, ...]], ...]]] = {
    "decide": tuple((server, "decide", (8, 32)) for server in _PEERS),
    "usage": tuple((server, "usage", (8, 32)) for server in _PEERS[:4]),
    "parts": (
        ("gateway", "decide", (32,)),
        ("gateway", "decide-plain", (32,)),
        ("gateway-1%", "decide", (32,)),
        ("gateway-headers", "decide", (32,)),
        ("gateway-unpinned", "decide", (32,)),
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
    "ids": tuple(("gateway", load, (1, 8, 128)) for load in ("decide-id", "assignments", "batch")),
}
"""The rest of ``make bench-full``."""


def cells(site: Site, servers: dict[str, Server], group: str) -> list[Cell]:
    """The cells of a group, over its running servers."""
    return [
        Cell(
            group,
            server,
            load,
            connections,
            _run(site, servers.get(server), server, load, connections),
        )
        for server, load, counts in FULL[group]
        for connections in counts
    ]


def _run(
    site: Site, server: Server | None, name: str, load: str, connections: int
) -> Callable[[float], Sample]:
    if server is None:
        return lambda seconds: bare(site.nats.url, load, at_once=connections, seconds=seconds)
    denied = load == "denied"
    return partial(
        _measured,
        server,
        "usage" if denied else load,
        site.weak_key if denied else site.key,
        connections,
        name in ("gateway-headers", "gateway-bare"),
    )


def _measured(
    server: Server, script: str, key: str, connections: int, headers: bool, seconds: float
) -> Sample:
    return measure(
        server, script, key=key, connections=connections, seconds=seconds, headers=headers
    )
