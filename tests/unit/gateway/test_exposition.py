"""The exposition: formats and encodings, as the scraper asks for them."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from gateway.telemetry.metrics.exposition import OPENMETRICS, TEXT, expose

PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        ("text/plain", TEXT),
        ("text/*", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=1.0.0", OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("text/plain;q=0.5, application/openmetrics-text;q=0.9", OPENMETRICS),
        ("text/plain;q=0.9, application/openmetrics-text;q=0.5", TEXT),
        ("application/openmetrics-text;q=0.5, text/plain", TEXT),
        ("application/openmetrics-text;q=0, */*", TEXT),
        ("text/html", TEXT),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/openmetrics-text;version=abc", OPENMETRICS),
        ("application/openmetrics-text;version=99.0.0", OPENMETRICS),
        (",;q=,=;;,text/plain;q=x", TEXT),
        ("\xff\xfe", TEXT),
    ],
)
def test_the_format_is_what_the_scraper_likes_best(accept: str, content_type: str) -> None:
    found = expose(accept, "")
    assert found.headers["Content-Type"] == content_type
    text = found.body.decode()
    assert text.endswith("# EOF\n") == (content_type == OPENMETRICS)
    read: Callable[[str], Iterable[Metric]]
    read = read_openmetrics if content_type == OPENMETRICS else read_text
    families = list(read(text))
    assert any(family.name == "beamline_gateway_cp_requests" for family in families)


@pytest.mark.parametrize(
    ("accept_encoding", "compressed"),
    [
        ("", False),
        ("gzip", True),
        ("gzip, deflate, br", True),
        ("deflate;q=1, gzip;q=0.1", True),
        ("*", True),
        ("identity", False),
        ("gzip;q=0", False),
        ("*;q=0.5, gzip;q=0", False),
        ("br", False),
    ],
)
def test_it_is_compressed_if_the_scraper_takes_that(accept_encoding: str, compressed: bool) -> None:
    found = expose("", accept_encoding)
    assert found.headers.get("Content-Encoding") == ("gzip" if compressed else None)
    body = gzip.decompress(found.body) if compressed else found.body
    assert b"# TYPE beamline_gateway_cp_requests_total counter" in body


def test_caches_are_told_that_it_depends_on_both() -> None:
    assert expose("", "").headers["Vary"] == "Accept, Accept-Encoding"
