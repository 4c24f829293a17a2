"""Exposition: the metrics of all workers of this instance, in the format and encoding that the scraper asks for.

OpenMetrics 1.0 or the Prometheus text format, by the ``q`` of ``Accept``; a scraper that wants neither gets text, as
Prometheus' own do. Exact while workers come and go (`gateway.telemetry.metrics.files`).
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from gateway.telemetry.metrics.files import of_this_worker

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_GZIP_LEVEL: Final = 4
"""Names and labels repeat: more effort costs milliseconds and gains next to nothing."""
_ENCODERS: Final[dict[str, Callable[[CollectorRegistry], bytes]]] = {
    TEXT: generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}


@dataclass(frozen=True, slots=True)
class Exposition:
    """What is answered to a scrape."""

    body: bytes
    headers: dict[str, str]


def registry() -> CollectorRegistry:
    """What is collected: all workers of this instance; under no gunicorn, this process."""
    files = of_this_worker()
    if files is None:
        return REGISTRY
    instance = CollectorRegistry()
    instance.register(files)
    return instance


def expose(accept: str, accept_encoding: str) -> Exposition:
    """The metrics, as these two headers of the request ask for them. Raises `metric_files.Unsettled`."""
    content_type = _best(accept)
    body = _ENCODERS[content_type](registry())
    headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
    if parse_accept_header(accept_encoding)["gzip"] > 0:
        body = gzip.compress(body, _GZIP_LEVEL)
        headers["Content-Encoding"] = "gzip"
    return Exposition(body, headers)


def _best(accept: str) -> str:
    """The format that the scraper likes best, text where it likes both alike or none.

    Versions are not negotiated: each format has one that all scrapers of the last years read.
    """
    # A parameter, such as a version, would make a range match itself only.
    ranges = parse_accept_header(accept)
    wanted = MIMEAccept([(value.partition(";")[0].strip(), quality) for value, quality in ranges])
    text, open_metrics = wanted["text/plain"], wanted["application/openmetrics-text"]
    return OPENMETRICS if open_metrics > text else TEXT
