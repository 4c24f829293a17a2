"""Start-up: ``beamline-gateway serve`` to the first 200 of ``/readyz``, beside Flask hello under the same gunicorn."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import click

from tests.bench.results import Measured, Settings
from tests.bench.site import Server, Site, running

TIMES: Final = 5


def startup(settings: Settings) -> dict[str, Measured]:
    """The seconds of five starts of each, in turn; one of each before, which makes streams and byte code."""
    with running() as site:
        starts: dict[str, Callable[[], Server]] = {
            "startup gateway /readyz 0": partial(_gateway, site),
            "startup hello /livez 0": partial(
                site.gunicorn, "hello", "tests.bench.peers.hello:app"
            ),
        }
        seconds: dict[str, list[float]] = {name: [] for name in starts}
        for number in range(1 + TIMES):
            for name, start in starts.items():
                begun = time.perf_counter()
                server = start()
                took = time.perf_counter() - begun
                site.stop(server)
                if number:
                    seconds[name].append(took)
                    click.echo(f"{number}/{TIMES}  {name:38} {took:8.2f} s", err=True)
    return {name: Measured(settings, [], {"seconds": took}) for name, took in seconds.items()}


def _gateway(site: Site) -> Server:
    return site.gateway(OTEL_EXPORTER_OTLP_ENDPOINT=site.collector)
