"""gunicorn's entry point: ``gunicorn -c python:gateway.gunicorn_conf gateway.wsgi:app``.

Imported in each worker, after the fork. The bridge made here is started by `gateway.gunicorn_conf` when the worker is
ready, and closed when it ends.
"""

from __future__ import annotations

import os

from bridge import Bridge
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.intake import ResultIntake
from gateway.runtime import EXTENSION
from gateway.settings import Settings
from gateway.telemetry.logging import otel_lines, setup
from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.labels import SubjectLabel
from gateway.telemetry.metrics.vitals import Vitals
from gateway.telemetry.observer import NatsTelemetry
from gateway.telemetry.tracing.tracer import Tracing

settings = Settings.from_environ(os.environ)
setup.configure(settings, metrics.LOG_LINES_LOST.inc)
otel_lines.install()
tracing = Tracing(settings)
config = bridge_config(settings, name=f"beamline-gateway/{os.getpid()}")
bridge = Bridge(
    config,
    observer=NatsTelemetry(tracing, SubjectLabel((*(config.publishes or ()), *config.requests))),
    services=(ResultIntake(settings),),
    on_beat=metrics.LOOP_LAG.observe,
)
app = create_app(settings, bridge, tracing)
vitals = Vitals(settings, bridge, app.extensions[EXTENSION].draining)
