"""What operators and orchestrators ask: probes, and what needs no credentials."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from tests.support.http_client import Client


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_probe_of_a_healthy_gateway_is_200(anonymous: Client, path: str) -> None:
    answer = anonymous.get(path)
    assert answer.status == 200
    assert (answer.header("Content-Type") or "").startswith("application/json")


@pytest.mark.parametrize("path", ["/health", "/_health"])
def test_older_clients_find_their_health_alias(anonymous: Client, path: str) -> None:
    answer = anonymous.get(path)
    assert answer.status == 200
    assert answer.json() == {"status": "ok", "service": "beamline-gateway"}


@pytest.mark.parametrize(
    "path", ["/livez", "/readyz", "/health", "/_health", "/metrics", "/openapi.json", "/docs"]
)
def test_operational_endpoint_needs_no_credentials(anonymous: Client, path: str) -> None:
    answer = anonymous.get(path)
    while answer.status in (301, 302, 307, 308):
        location = urlsplit(answer.header("Location") or "")
        answer = anonymous.get(location.path)
    assert answer.status == 200, answer
