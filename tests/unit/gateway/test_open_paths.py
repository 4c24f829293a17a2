"""What is open to everybody: probes, metrics, the document and its page."""

from __future__ import annotations

import re
from urllib.parse import urljoin

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.unit.gateway.given import STRANGER, app_without_nats, expect


@pytest.fixture(scope="module")
def gateway() -> Flask:
    return app_without_nats()


@pytest.mark.parametrize("path", ["/health", "/_health", "/metrics", "/openapi.json", "/docs/"])
def test_operational_paths_need_no_credentials(gateway: Flask, path: str) -> None:
    answer = gateway.test_client().get(path, environ_base=STRANGER)
    assert answer.status_code == 200
    assert answer.headers["X-Request-ID"] and answer.headers["X-Trace-ID"]


def test_the_docs_page_leads_to_its_own_assets_only(gateway: Flask) -> None:
    client: FlaskClient = gateway.test_client()
    moved = client.get("/docs")
    assert moved.status_code == 308 and moved.headers["Location"].endswith("/docs/")
    page = client.get("/docs/").get_data(as_text=True)
    assert "/openapi.json" in page
    assets = re.findall(r"""(?:src|href)=["']([^"']+)["']""", page)
    assert assets and not [asset for asset in assets if "//" in asset]
    for asset in assets:
        assert client.get(urljoin("/docs/", asset), buffered=True).status_code == 200, asset


def test_a_range_that_an_asset_does_not_have_is_the_clients_mistake(gateway: Flask) -> None:
    answer = gateway.test_client().get(
        "/docs/swagger-ui.css", headers={"Range": "bytes=999999999-"}
    )
    expect(answer, 416, "invalid_request")


@pytest.mark.parametrize("path", ["/docs/../cli.py", "/docs/%00", "/docs/nothing.js"])
def test_there_is_nothing_else_below_docs(gateway: Flask, path: str) -> None:
    expect(gateway.test_client().get(path), 404, "not_found")
