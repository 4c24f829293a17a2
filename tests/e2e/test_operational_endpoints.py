"""What operators, orchestrators and scrapers ask: probes, metrics, the API's description and its page."""

from __future__ import annotations

import functools
import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from prometheus_client.parser import text_string_to_metric_families

from tests.support.corpus import all_cases
from tests.support.documents import ACKS, ASSIGNMENTS, DECIDE, USAGE, decide_body
from tests.support.http_client import Answer, Client, as_tenant
from tests.support.stacks import Running
from tests.support.waiting import wait_until

REQUESTS_TOTAL = "beamline_gateway_cp_requests_total"
LATENCY = "beamline_gateway_cp_latency_seconds"


@pytest.fixture
def anonymous(stack: Running) -> Any:
    """A client without any credentials."""
    with stack.gateway.client(headers={}) as client:
        yield client


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


# -- metrics ----------------------------------------------------------------------------------------


def scrape(client: Client) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Sample name → labels → value. Fails if Prometheus could not read it."""
    answer = client.get("/metrics", {"Accept": "text/plain"})
    assert answer.status == 200
    assert (answer.header("Content-Type") or "").startswith("text/plain"), answer
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            values = samples.setdefault(sample.name, {})
            assert labels not in values, f"{sample.name}{dict(labels)} twice"
            values[labels] = sample.value
    return samples


def count(
    samples: dict[str, dict[tuple[tuple[str, str], ...], float]], name: str, **labels: str
) -> float:
    """The sum of all samples of this name that have these labels."""
    return sum(
        value
        for found, value in samples.get(name, {}).items()
        if labels.items() <= dict(found).items()
    )


def test_every_request_is_counted_once_over_all_workers(stack: Running, anonymous: Client) -> None:
    labels = {"route": DECIDE, "method": "POST", "status": "200", "cp_phase": "cp5"}
    before = scrape(anonymous)
    for _ in range(20):
        # A connection each, so that both workers get some.
        with stack.gateway.client() as client:
            assert client.post(DECIDE, decide_body(), {"X-CP-Phase": "cp5"}).status == 200

    def rise(name: str, **wanted: str) -> float:
        return count(scrape(anonymous), name, **wanted) - count(before, name, **wanted)

    # A worker may count after the client has its answer.
    wait_until(lambda: rise(REQUESTS_TOTAL, **labels) >= 20, message=lambda: str(scrape(anonymous)))
    assert rise(REQUESTS_TOTAL, **labels) == 20
    del labels["status"]
    assert rise(f"{LATENCY}_count", **labels) == 20
    assert rise("beamline_gateway_nats_requests_total", subject="beamline.router.v1.decide") == 20


def test_metric_families_have_the_labels_of_the_contract(client: Client, anonymous: Client) -> None:
    client.post(DECIDE, decide_body())
    expected = {
        REQUESTS_TOTAL: {"cp_phase", "route", "method", "status"},
        f"{LATENCY}_count": {"cp_phase", "route", "method"},
        "beamline_gateway_nats_requests_total": {"subject", "outcome"},
    }
    samples = wait_until(lambda: scrape(anonymous))
    for name, labels in expected.items():
        assert samples.get(name), f"{name} is missing"
        for found in samples[name]:
            assert set(dict(found)) == labels, name


def test_nothing_that_a_caller_makes_up_becomes_a_label(client: Client, anonymous: Client) -> None:
    made_up = "canary-label-77"
    client.get(f"/api/v1/{made_up}")
    client.request(made_up.upper().replace("-", ""), DECIDE)
    client.post(DECIDE, decide_body(policy_id=made_up, request_id=made_up), as_tenant("acme"))
    client.post(
        DECIDE,
        decide_body(tenant_id=made_up),
        {**as_tenant(made_up), "X-CP-Phase": made_up, "X-Trace-ID": made_up},
    )
    answer = anonymous.get("/metrics")
    assert made_up not in answer.body.decode()
    assert made_up.upper().replace("-", "") not in answer.body.decode()
    for labels in scrape(anonymous)[REQUESTS_TOTAL]:
        assert dict(labels)["cp_phase"] in {*(f"cp{n}" for n in range(9)), "unknown"}


# -- the API's description ---------------------------------------------------------------------------


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


# -- the page ----------------------------------------------------------------------------------------


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


# -- the access log ----------------------------------------------------------------------------------


def access_lines(stack: Running, request_id: str) -> list[dict[str, Any]]:
    """The JSON lines of the output that tell of this request's end."""
    lines = []
    for line in stack.gateway.output().splitlines():
        if request_id in line and line.startswith("{"):
            document = json.loads(line)
            if document.get("request_id") == request_id and "status" in document:
                lines.append(document)
    return lines


def test_each_request_has_one_access_line_in_json(stack: Running, client: Client) -> None:
    body = decide_body()
    answer = client.post(DECIDE, body)
    wait_until(lambda: access_lines(stack, body["request_id"]))
    (line,) = access_lines(stack, body["request_id"])
    assert line["status"] == 200
    assert line["trace_id"] == answer.header("X-Trace-ID")
    assert line["route"] == DECIDE
    assert line["tenant_id" if "tenant_id" in line else "tenant"] == "acme"


@pytest.mark.parametrize(
    ("document", "headers", "status", "error_type"),
    [
        pytest.param({}, {"X-Role": ""}, 401, "auth_gateway", id="auth_gateway"),
        pytest.param({"tenant_id": "umbrella"}, {}, 403, "auth_gateway", id="denied"),
        pytest.param({"asignment_id": "1"}, {}, 400, "request_gateway", id="request_gateway"),
    ],
)
def test_access_line_names_the_type_of_the_error(
    stack: Running,
    client: Client,
    document: dict[str, Any],
    headers: dict[str, str],
    status: int,
    error_type: str,
) -> None:
    answer = client.post(DECIDE, decide_body(**document), headers)
    assert answer.status == status
    request_id = answer.json()["context"]["request_id"]
    wait_until(lambda: access_lines(stack, request_id))
    (line,) = access_lines(stack, request_id)
    assert line["error_type"] == error_type


def test_output_holds_no_credential_and_no_payload(stack: Running, client: Client) -> None:
    secret, text = "canary-secret-41c7", "canary-payload-88d2"
    body = decide_body(task={"type": "chat", "payload": {"text": text}})
    headers = {"Authorization": f"Bearer {secret}", "X-API-Key": secret, "Cookie": secret}
    assert client.post(DECIDE, body, headers).status == 200
    refused = client.post(DECIDE, {**body, "asignment_id": text}, headers)
    assert refused.status == 400
    for request_id in (body["request_id"], refused.json()["context"]["request_id"]):
        wait_until(functools.partial(access_lines, stack, request_id))
    assert secret not in stack.gateway.output()
    assert text not in stack.gateway.output()
