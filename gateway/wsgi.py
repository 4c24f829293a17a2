"""gunicorn's entry point: ``gunicorn -c python:gateway.gunicorn_conf gateway.wsgi:app``.

Imported in each worker, after the fork. The bridge made here is started by `gateway.gunicorn_conf` when the worker is
ready, and closed when it ends.
"""

from __future__ import annotations

import os

from bridge import Bridge
from gateway.app import bridge_config, create_app
from gateway.intake import ResultIntake
from gateway.settings import Settings
from gateway.telemetry import logging
from gateway.telemetry.tracing import NatsTelemetry, Tracing

settings = Settings.from_environ(os.environ)
logging.configure(settings)
tracing = Tracing(settings)
bridge = Bridge(
    bridge_config(settings, name=f"beamline-gateway/{os.getpid()}"),
    observer=NatsTelemetry(tracing),
    services=(ResultIntake(settings),),
)
app = create_app(settings, bridge, tracing)
