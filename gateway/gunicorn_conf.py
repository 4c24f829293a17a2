"""gunicorn's configuration: the process model and the lifecycle of what each worker holds.

Workers are ``gthread``, never preloaded: a loop thread, a NATS connection or an exporter made before the fork hangs
in the child. SIGTERM does not reach a gunicorn hook before the requests in flight have ended, so the worker's handler
is wrapped: first `/readyz` fails, after ``GATEWAY_DRAIN_MS`` the worker stops accepting, then it finishes what it has
begun, then the bridge and the exporter are closed, each within a bound.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from math import ceil
from pathlib import Path
from types import FrameType
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from gateway.settings import Settings
from gateway.telemetry.logging import config_dict

_settings = Settings.from_environ(os.environ)
_FIRST_CONNECT_SECONDS = 1.0
_BRIDGE_CLOSE_SECONDS = 3.0
_TRACING_CLOSE_SECONDS = 1.5
_METRICS_PREFIX = "beamline-gateway-metrics-"

bind = _settings.bind
workers = _settings.workers
worker_class = "gthread"
threads = _settings.threads
worker_connections = 2_000
preload_app = False
timeout = 60
graceful_timeout = ceil((_settings.graceful_timeout_ms + _settings.drain_ms) / 1000)
keepalive = ceil(_settings.keepalive_ms / 1000)
max_requests = _settings.max_requests
max_requests_jitter = _settings.max_requests // 10
accesslog = None
logconfig_dict = config_dict(_settings)
# gunicorn's control socket has one fixed path a user: two gateways of one user would share it.
control_socket_disable = True


def on_starting(server: Arbiter) -> None:
    """Give the workers' metric files an empty folder. The client reads the variable when it is imported."""
    folder = _settings.metrics_dir
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix=_METRICS_PREFIX))
    else:
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.db"):
            file.unlink(missing_ok=True)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def on_exit(server: Arbiter) -> None:
    """Remove the folder if it was made here."""
    if _settings.metrics_dir is None:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)


def post_worker_init(worker: ThreadWorker) -> None:
    """Start the bridge. It connects in the background, so that a worker boots without NATS.

    Where NATS is there, the worker takes its first request only when it can be answered: one that replaces another
    under load would otherwise refuse some.
    """
    from gateway.wsgi import app, bridge

    bridge.start()
    bridge.wait_ready(_FIRST_CONNECT_SECONDS)
    _drain_on_sigterm(worker, app.extensions["beamline_gateway"].draining)


def post_request(worker: ThreadWorker, req: Any, environ: Any, resp: Any) -> None:
    """Let a worker that has served its last request (``GATEWAY_MAX_REQUESTS``) end its streams and long polls.

    Nobody sends it a signal, and until they have ended it is neither gone nor replaced.
    """
    if not worker.alive:
        from gateway.wsgi import app

        app.extensions["beamline_gateway"].draining.set()


def worker_exit(server: Arbiter, worker: ThreadWorker) -> None:
    """Close what the worker holds; gunicorn calls this when its requests have ended."""
    if not worker.booted:
        return
    from gateway.wsgi import app, bridge, tracing

    # However it came to its end: a stream that goes on would keep the process, without a bridge.
    app.extensions["beamline_gateway"].draining.set()
    bridge.close(_BRIDGE_CLOSE_SECONDS)
    tracing.shutdown(_TRACING_CLOSE_SECONDS)


def child_exit(server: Arbiter, worker: ThreadWorker) -> None:
    """Drop the gauges of a worker that is gone."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _drain_on_sigterm(worker: ThreadWorker, draining: threading.Event) -> None:
    stop: Any = signal.getsignal(signal.SIGTERM)

    def drain(signum: int, frame: FrameType | None) -> None:
        first = not draining.is_set()
        draining.set()
        if not first or _settings.drain_ms == 0:
            stop(signum, frame)
            return
        timer = threading.Timer(_settings.drain_ms / 1000, stop, (signum, None))
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, drain)
    signal.siginterrupt(signal.SIGTERM, False)
