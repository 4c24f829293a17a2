"""create_app: the only place where the parts meet."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from flask import Flask
from flask.json.provider import JSONProvider

from bridge import Bridge
from gateway import blueprints, json
from gateway.access import Allowlists, Authoriser, BucketRoles, FileRoles, required_by
from gateway.admission import Admission
from gateway.door import OPEN_BLUEPRINTS, Door
from gateway.gate import Gate
from gateway.idempotency import Leases, Replays
from gateway.identity import (
    ApiKeyAuthenticator,
    Authenticator,
    HeaderAuthenticator,
    JwtAuthenticator,
    keys,
    signing_keys,
    tokens,
)
from gateway.limits import Limits
from gateway.operations.decide import DECIDE
from gateway.runtime import EXTENSION, Runtime
from gateway.settings import Settings
from gateway.status import Status
from gateway.sticky import Sessions
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.declarations import TenantLabel
from gateway.telemetry.tracing.tracer import Tracing


class OrjsonProvider(JSONProvider):
    """Flask's JSON, by orjson."""

    def dumps(self, obj: Any, **_: Any) -> str:
        """See `flask.json.provider.JSONProvider`."""
        return json.dumps(obj).decode()

    def loads(self, s: str | bytes, **_: Any) -> Any:
        """See `flask.json.provider.JSONProvider`."""
        return json.loads(s)


class _Gateway(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """``func``: views and hooks are plain functions here. Flask would look again at each, at every request."""
        return func


def create_app(settings: Settings, bridge: Bridge, tracing: Tracing | None = None) -> Flask:
    """The WSGI app over a bridge, which it does not start. Makes no thread and no connection."""
    app = _Gateway("gateway", static_folder=None)
    app.json = OrjsonProvider(app)
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.url_map.merge_slashes = False
    allowlists = Allowlists.of(settings.tenant_allowlist, settings.policy_allowlist)
    admission = Admission(
        _authenticator(settings, bridge),
        Authoriser(
            BucketRoles(bridge)
            if settings.roles_source == "bucket"
            else FileRoles(settings.roles_file),
            **_ttls(settings),
        ),
        allowlists,
    )
    gate = Gate(settings.in_flight_cap)
    limits = Limits.of(settings)
    app.extensions[EXTENSION] = Runtime(
        settings,
        bridge,
        admission,
        tenant_label=TenantLabel(settings.metrics_tenants),
        replays=Replays(settings.idempotency_local_entries, lambda: bridge.generation),
        leases=Leases(settings.lease_seconds, metrics.CLAIMS.labels(DECIDE, "taken_over").inc),
        sessions=Sessions(),
        gate=gate,
        limits=limits,
        waiting=threading.BoundedSemaphore(settings.waiting_cap),
        status=Status(settings, bridge),
    )
    door = Door(
        settings,
        admission,
        tracing or Tracing(settings),
        gate,
        limits,
    )
    door.install(app)
    for blueprint in blueprints.ALL:
        app.register_blueprint(blueprint)
    _check_all_are_guarded(app)
    return app


def _authenticator(settings: Settings, bridge: Bridge) -> Authenticator:
    if settings.auth_mode == "headers":
        return HeaderAuthenticator(settings.trusted_proxies)
    if settings.auth_mode == "api_key":
        in_bucket = settings.apikeys_source == "bucket"
        source = keys.BucketKeys(bridge) if in_bucket else keys.FileKeys(settings.apikeys_file)
        return ApiKeyAuthenticator(source, **_ttls(settings))
    assert settings.jwt_issuer is not None and settings.jwt_audience is not None
    if settings.jwt_secret is not None:
        key_of = tokens.shared_secret(settings.jwt_secret)
    else:
        read = (
            signing_keys.from_file(settings.jwt_jwks_file)
            if settings.jwt_jwks_file is not None
            else signing_keys.from_url(settings.jwt_jwks_url or "")
        )
        ttl_seconds = settings.jwt_jwks_ttl_ms / 1000
        key_of = tokens.public_keys(signing_keys.SigningKeys(read, ttl_seconds=ttl_seconds))
    return JwtAuthenticator(
        key_of,
        algorithms=settings.algorithms,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        leeway_seconds=settings.jwt_leeway_ms / 1000,
    )


def _ttls(settings: Settings) -> dict[str, float]:
    return {
        "ttl_seconds": settings.rbac_cache_ttl_ms / 1000,
        "deny_ttl_seconds": settings.rbac_deny_ttl_ms / 1000,
    }


def _check_all_are_guarded(app: Flask) -> None:
    """A view that was forgotten would refuse everybody, which is safe and a mistake: say so at the start."""
    for endpoint, view in app.view_functions.items():
        is_open = endpoint.partition(".")[0] in OPEN_BLUEPRINTS
        if not is_open and required_by(view).permission is None:
            raise RuntimeError(f"the view {endpoint} names no permission")
