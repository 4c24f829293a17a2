"""The endpoints that there are, as the app itself knows them: a new one cannot be forgotten."""

from __future__ import annotations

from werkzeug.routing import Rule

from bridge import Bridge
from gateway.access import required_by
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.settings import Settings


def routes() -> set[tuple[str, str, str]]:
    """Method, rule and permission (``-``: open to everybody) of every endpoint. HEAD goes with GET."""
    settings = Settings.from_environ({"AUTH_MODE": "headers", "TRUSTED_PROXIES": "127.0.0.1"})
    app = create_app(settings, Bridge(bridge_config(settings)))
    return {
        (method, _named(rule), required_by(app.view_functions[rule.endpoint]).permission or "-")
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def _named(rule: Rule) -> str:
    """Below the documentation's page the library that serves it has rules of its own, others in each version."""
    below_page = rule.rule.startswith("/docs/") and rule.rule != "/docs/"
    return "/docs/<path:path>" if below_page else rule.rule
