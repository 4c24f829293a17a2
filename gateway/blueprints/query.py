"""Query strings: validated like bodies, with the same sentences."""

from __future__ import annotations

from typing import Any

from flask import request
from marshmallow import Schema, ValidationError

from gateway.blueprints.body import sentence_of
from gateway.errors import invalid_request


def load_query(schema: Schema) -> dict[str, Any]:
    """The validated query of the request at work. Raises GatewayError 400; a parameter given twice is one."""
    raw: dict[str, str] = {}
    for name, values in request.args.lists():
        if len(values) > 1:
            raise invalid_request(f"{name} is given more than once.")
        raw[name] = values[0]
    try:
        loaded: dict[str, Any] = schema.load(raw)
    except ValidationError as error:
        sentence, fields = sentence_of(error)
        raise invalid_request(sentence, fields=fields) from None
    return loaded
