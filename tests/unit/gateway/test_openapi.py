"""The OpenAPI document: valid, complete, and its examples are what the schemas accept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import OpenAPIV31SpecValidator

from gateway.openapi import Endpoint, document, endpoints
from tests.unit.gateway.given import CALLER, app_without_nats

UNDOCUMENTED = re.compile(r"/openapi\.json|/docs(/.*)?|/status/assets/.*")
"""The document itself and the page that shows it; what the status page is shown with."""
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return document()


@pytest.fixture(scope="module")
def gateway() -> Flask:
    return app_without_nats()


def examples() -> Iterator[Any]:
    for endpoint in endpoints():
        for name, example in endpoint.examples.items():
            yield pytest.param(endpoint, example, id=f"{endpoint.path} {name}")


def operations(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in spec["paths"].items():
        for method, operation in item.items():
            yield f"{method} {path}", operation


def body_schema(spec: dict[str, Any], endpoint: Endpoint) -> OAS31Validator:
    """A JSON Schema validator of what the document says that the endpoint takes."""
    operation = spec["paths"][_openapi_path(endpoint.path)][endpoint.method]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    return OAS31Validator({**schema, "components": spec["components"]})


def _openapi_path(rule: str) -> str:
    return re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule)


def test_the_document_is_valid_openapi_3_1(spec: dict[str, Any]) -> None:
    assert spec["openapi"].startswith("3.1")
    assert not list(OpenAPIV31SpecValidator(spec).iter_errors())


def test_it_documents_the_routes_that_exist_and_no_other(gateway: Flask) -> None:
    routes = {
        (method.lower(), _openapi_path(rule.rule))
        for rule in gateway.url_map.iter_rules()
        for method in rule.methods or ()
        if method.lower() in METHODS and not UNDOCUMENTED.fullmatch(rule.rule)
    }
    documented = {(endpoint.method, _openapi_path(endpoint.path)) for endpoint in endpoints()}
    assert documented == routes


def test_names_of_operations_are_unique(spec: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(spec)]
    assert len(names) == len(set(names))


def test_what_needs_credentials_says_so_and_what_does_not_says_so_too(
    spec: dict[str, Any], gateway: Flask
) -> None:
    client = gateway.test_client()
    for name, operation in operations(spec):
        method, path = name.split()
        answer = client.open(re.sub(r"\{\w+\}", "x", path), method=method.upper())
        public = operation.get("security") == []
        assert (answer.status_code == 401) == (not public), name


def test_every_error_is_documented_with_the_one_body(spec: dict[str, Any]) -> None:
    for name, operation in operations(spec):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")) and operation.get("security") != []:
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorAnswer"}, (name, status)


@pytest.mark.parametrize(("endpoint", "example"), list(examples()))
def test_an_example_is_what_the_document_says_that_the_endpoint_takes(
    spec: dict[str, Any], endpoint: Endpoint, example: dict[str, Any]
) -> None:
    assert not list(body_schema(spec, endpoint).iter_errors(example))


@pytest.mark.parametrize(("endpoint", "example"), list(examples()))
def test_an_example_is_what_the_endpoint_takes(
    gateway: Flask, endpoint: Endpoint, example: dict[str, Any]
) -> None:
    answer = gateway.test_client().post(endpoint.path, json=example, headers=CALLER)
    # Without NATS the way ends behind the validation.
    assert answer.status_code == 503, answer.json


@pytest.mark.parametrize(("endpoint", "example"), list(examples()))
def test_the_document_refuses_an_unknown_field_as_the_endpoint_does(
    spec: dict[str, Any], gateway: Flask, endpoint: Endpoint, example: dict[str, Any]
) -> None:
    wrong = {**example, "asignment_id": "a-1"}
    assert list(body_schema(spec, endpoint).iter_errors(wrong))
    answer = gateway.test_client().post(endpoint.path, json=wrong, headers=CALLER)
    assert answer.status_code == 400
    assert answer.json is not None and "asignment_id" in answer.json["error"]["message"]


def test_the_served_document_holds_examples_of_now(gateway: Flask) -> None:
    served = gateway.test_client().get("/openapi.json")
    assert served.status_code == 200 and served.json is not None
    assert served.json.keys() == document().keys()
    assert served.json["paths"].keys() == document()["paths"].keys()
