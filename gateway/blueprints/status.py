"""``/status``: the instance for people with a browser, and the same as JSON for whoever asks for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from flask import Blueprint, Response, render_template, request, send_from_directory

from gateway.access import Permission, requires
from gateway.door import respond
from gateway.runtime import context, runtime
from gateway.status import page

_HERE: Final = Path(page.__file__).parent
_ASSETS: Final = _HERE / "assets"
_HEADERS: Final = {
    # Nothing from elsewhere, nothing inline, no place in another's frame.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Vary": "Accept",
}

blueprint = Blueprint("status", __name__, template_folder=str(_HERE / "templates"))


@blueprint.get("/status")
@requires(Permission.STATUS_READ, basic=True)
def status() -> Response:
    """What the instance is doing: a page for who accepts HTML, as browsers do, else JSON."""
    parts = runtime()
    overview = parts.status.overview(context().tenant, draining=parts.draining.is_set())
    if not _wants_page():
        return respond(
            {"ok": True, "status": overview, "context": context().correlation()}, 200, _HEADERS
        )
    return Response(_page(overview), 200, _HEADERS, mimetype="text/html")


@blueprint.get("/status/assets/<name>")
@requires(Permission.STATUS_READ, basic=True)
def asset(name: str) -> Response:
    """What the page is shown with."""
    response = send_from_directory(_ASSETS, name)
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def _wants_page() -> bool:
    # JSON comes first where both are equally welcome, as they are to curl.
    wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    return wanted == "text/html"


def _page(overview: dict[str, Any]) -> str:
    return render_template("status.html", **page.shown(overview, context().tenant))
