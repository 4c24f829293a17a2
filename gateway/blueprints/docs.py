"""``/openapi.json`` and ``/docs``: the contract, for programs and for people. Assets come from the package."""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Final

from flask import Blueprint, Response
from flask_swagger_ui import get_swaggerui_blueprint

from gateway.door import respond
from gateway.openapi import document
from gateway.runtime import runtime

_EXAMPLES_LAST_SECONDS: Final = 60
"""The document is made anew after it: an example holds the time of now, and old usage is refused."""

blueprint = Blueprint("docs", __name__)
_PAGE = get_swaggerui_blueprint(
    "/docs",
    "/openapi.json",
    config={"app_name": "Beamline Gateway", "validatorUrl": None},
    blueprint_name="page",
)
blueprint.register_blueprint(_PAGE)


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI 3.1 document."""
    auth_mode = runtime().settings.auth_mode
    return respond(_document(auth_mode, int(time.time() // _EXAMPLES_LAST_SECONDS)))


@lru_cache(maxsize=1)
def _document(auth_mode: str, _period: int) -> dict[str, object]:
    return document(auth_mode)
