"""The API's description and its page: valid, complete, with examples that work, and nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.support.corpus import all_cases
from tests.support.documents import ACKS, ASSIGNMENTS, DECIDE, USAGE
from tests.support.http_client import Answer, Client, as_tenant


@pytest.fixture
def openapi(anonymous: Client) -> dict[str, Any]:
    document: dict[str, Any] = anonymous.get("/openapi.json").json()
    return document


def test_description_is_valid_openapi_3_1(openapi: dict[str, Any]) -> None:
    assert re.fullmatch(r"3\.1\.\d+", openapi["openapi"])
    OpenAPIV31SpecValidator(openapi).validate()


def test_description_holds_every_endpoint(openapi: dict[str, Any]) -> None:
    posts = {path for path, item in openapi["paths"].items() if "post" in item}
    assert {DECIDE, ASSIGNMENTS, ACKS, USAGE} <= posts
    gets = {path for path, item in openapi["paths"].items() if "get" in item}
    assert {"/livez", "/readyz", "/health", "/_health", "/metrics"} <= gets


def test_every_status_of_the_corpus_is_in_the_description(openapi: dict[str, Any]) -> None:
    for kind in ("valid", "invalid"):
        for case in all_cases(kind):
            operation = openapi["paths"].get(case.path, {}).get(case.method.lower())
            if operation is None:
                continue
            known = set(operation["responses"])
            for expected in case.expected:
                assert str(expected.status) in known, f"{case.name}: {sorted(known)}"


def test_every_example_of_the_description_works(openapi: dict[str, Any], client: Client) -> None:
    """As somebody does who copies it from the page; ids are made new by nobody, so repeats must work too."""
    tried = 0
    for path, item in openapi["paths"].items():
        if "post" not in item:
            continue
        content = item["post"]["requestBody"]["content"]["application/json"]
        named = {name: one["value"] for name, one in content.get("examples", {}).items()}
        for name, example in {**named, "example": content.get("example")}.items():
            if example is None:
                continue
            tried += 1
            tenant = example.get("tenant_id") or example.get("message", {}).get("tenant_id")
            answer = client.post(path, example, as_tenant(tenant or "acme"))
            assert answer.status in (200, 202), f"{path} {name}: {answer}"
    assert tried >= 5, "decide in both dialects, assignment, ack and usage"


class _References(HTMLParser):
    """All that a browser would load for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.scripts: list[str] = []
        self._in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        name = {"link": "href", "a": ""}.get(tag, "src")
        if name and (value := values.get(name)):
            self.found.append(value)
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts.append(data)


def page(client: Client) -> tuple[str, Answer]:
    """The documentation page after its redirects, and its path."""
    path = "/docs"
    for _ in range(3):
        answer = client.get(path)
        if answer.status not in (301, 302, 307, 308):
            return path, answer
        path = urlsplit(answer.header("Location") or "").path
    raise AssertionError("/docs redirects in a circle")


def test_page_loads_everything_from_the_gateway_itself(anonymous: Client) -> None:
    path, answer = page(anonymous)
    assert answer.status == 200
    assert (answer.header("Content-Type") or "").startswith("text/html")
    references = _References()
    references.feed(answer.body.decode())
    assert references.found, "a page without a script shows nothing"
    for reference in references.found:
        assert not urlsplit(reference).netloc, f"{reference} is an outside address"
        if reference.startswith("data:"):
            continue
        asset = anonymous.get(urlsplit(urljoin(path, reference)).path)
        assert asset.status == 200, f"{reference}: {asset}"
        if reference.endswith(".css"):
            assert not re.search(rb"url\(\s*['\"]?(https?:)?//", asset.body), reference


def test_page_shows_this_gateway_and_asks_no_validator_outside(anonymous: Client) -> None:
    path, answer = page(anonymous)
    references = _References()
    references.feed(answer.body.decode())
    local = [one for one in references.found if one.endswith(".js") and "bundle" not in one]
    scripts = references.scripts + [
        anonymous.get(urlsplit(urljoin(path, one)).path).body.decode() for one in local
    ]
    configuration = "\n".join(text for text in scripts if len(text) < 100_000)
    assert "/openapi.json" in configuration
    assert re.search(
        r"""validatorUrl["']?\s*:\s*(null|false|["'](none|localhost|)["'])""", configuration
    )
