"""gunicorn's configuration: the process model and the lifecycle of what each worker holds.

Workers are ``gthread``, never preloaded: a loop thread, a NATS connection or an exporter made before the fork hangs
in the child. SIGTERM does not reach a gunicorn hook before the requests in flight have ended, so the worker's handler
is wrapped: first `/readyz` fails, after ``GATEWAY_DRAIN_MS`` the worker stops accepting, then it finishes what it has
begun, then the bridge and the exporter are closed, each within a bound.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from math import ceil
from types import FrameType
from typing import TYPE_CHECKING, Any

from gunicorn.arbiter import Arbiter
from gunicorn.workers.gthread import ThreadWorker

from gateway import windows
from gateway.cores import Cores
from gateway.settings import Settings
from gateway.telemetry.logging import otel_lines
from gateway.telemetry.logging.setup import config_dict
from gateway.telemetry.metrics.files import MetricFiles
from gateway.telemetry.tracing.settings import forget_empty
from gateway.turns import turns

if TYPE_CHECKING:
    from gateway.telemetry.metrics.server import MetricsServer

_log = logging.getLogger(__name__)
_settings = Settings.from_environ(os.environ)
forget_empty(os.environ)  # before a worker imports OpenTelemetry
_FIRST_CONNECT_SECONDS = 1.0
_BRIDGE_CLOSE_SECONDS = 3.0
_TRACING_CLOSE_SECONDS = 1.5
_METRICS_CLOSE_SECONDS = 1.0
_YOUNG_OBJECTS = 10_000
"""So many are made, and not freed, until the collector looks at them. To look after Python's own 700, and find next to
nothing, costs a twentieth of all requests."""
_cores = Cores.of(_settings.pin_workers, _settings.workers)
_metric_files: MetricFiles | None = None
_metrics_socket: socket.socket | None = None
_metrics_server: MetricsServer | None = None

bind = [_settings.bind, *([_settings.metrics_bind] if _settings.metrics_bind else [])]
workers = _settings.workers
worker_class = "gateway.server.Worker"
threads = _settings.threads
worker_connections = 2_000
preload_app = False
timeout = 60
graceful_timeout = ceil((_settings.graceful_timeout_ms + _settings.drain_ms) / 1000)
keepalive = ceil(_settings.keepalive_ms / 1000)
max_requests = _settings.max_requests
max_requests_jitter = _settings.max_requests // 10
accesslog = None
logger_class = "gateway.server.ServerLog"
logconfig_dict = config_dict(_settings)
# gunicorn's control socket has one fixed path a user: two gateways of one user would share it.
control_socket_disable = True
# By default a request from this machine, a proxy's for instance, may say what its path means (header SCRIPT_NAME).
forwarder_headers = ""


def on_starting(server: Arbiter) -> None:
    """Make what the workers share: an empty folder for their metrics, an empty file for the limits of requests to count
    in, the pace of OpenTelemetry's complaints.
    """
    global _metric_files  # gunicorn's hooks are functions, and the master's state is this module
    if "prometheus_client" in sys.modules:
        # The workers would inherit it, and count in memory: every scrape would find something else.
        raise RuntimeError("gunicorn's master must not import the metrics")
    try:
        _metric_files = MetricFiles.create(_settings.metrics_dir)
    except OSError as error:
        sys.exit(f"PROMETHEUS_MULTIPROC_DIR: expected a folder that can be written to ({error})")
    try:
        windows.prepare(_settings, _metric_files.root)
    except windows.Uncountable as error:
        from gateway.operator.bus import CONFIGURATION_ERROR

        _metric_files.remove()
        print(error, file=sys.stderr)
        sys.exit(CONFIGURATION_ERROR)
    otel_lines.share()


def on_exit(server: Arbiter) -> None:
    """Remove it, and all that the workers left in it."""
    if _metric_files is not None:
        _metric_files.remove()


def pre_fork(server: Arbiter, worker: ThreadWorker) -> None:
    """In the master: choose the new worker's core."""
    _cores.choose(worker.age)


def post_fork(server: Arbiter, worker: ThreadWorker) -> None:
    """In the new worker, before anything of the app is imported."""
    try:
        _cores.bind(worker.age)
    except OSError as error:  # taken away since the master looked
        _log.warning("this worker is not bound to a core: %s", error)
    global _metrics_socket
    if _settings.metrics_bind is not None:
        # The last one, in the order of ``bind``; also where an old master or systemd handed them on.
        listener: Any  # gunicorn wraps it
        *worker.sockets, listener = worker.sockets
        _metrics_socket = listener.sock
    assert _metric_files is not None
    try:
        _metric_files.adopt(worker.age)
    except OSError as error:
        _log.error("what this worker counts is lost: %s", error)


def post_worker_init(worker: ThreadWorker) -> None:
    """Start the bridge. It connects in the background, so that a worker boots without NATS.

    Where NATS is there, the worker takes its first request only when it can be answered: one that replaces another
    under load would otherwise refuse some.
    """
    global _metrics_server
    from gateway.telemetry.metrics.server import MetricsServer
    from gateway.wsgi import app, bridge, vitals

    bridge.start()
    if _metrics_socket is not None:
        _metrics_server = MetricsServer(_metrics_socket)
        _metrics_server.start()
    bridge.wait_ready(_FIRST_CONNECT_SECONDS)
    vitals.start()
    app.extensions["beamline_gateway"].status.history.start()
    # A full collection looks at all that was ever imported, and stops every request of the worker for 50 ms or more.
    # What is there by now stays: it need not be looked at again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)
    _drain_on_sigterm(worker, app.extensions["beamline_gateway"].draining)


def pre_request(worker: ThreadWorker, req: Any) -> None:
    """In place of gunicorn's own hook, which logs the path: it is the client's, and may hold anything."""


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
    from gateway.wsgi import app, bridge, tracing, vitals

    # However it came to its end: a stream that goes on would keep the process, without a bridge.
    app.extensions["beamline_gateway"].draining.set()
    bridge.close(_BRIDGE_CLOSE_SECONDS)
    tracing.shutdown(_TRACING_CLOSE_SECONDS)
    vitals.close()
    app.extensions["beamline_gateway"].status.history.close()
    app.extensions["beamline_gateway"].limits.close()
    if _metrics_server is not None:
        _metrics_server.close(_METRICS_CLOSE_SECONDS)


def child_exit(server: Arbiter, worker: ThreadWorker) -> None:
    """Fold what workers that are gone have counted, and give their places to others."""
    turns.forget(worker.age)
    _cores.release(worker.age)
    assert _metric_files is not None
    try:
        _metric_files.fold({living.age for living in server.WORKERS.values()})
    except OSError as error:
        _log.error(
            "the metrics of workers that are gone could not be folded, and are tried again: %s",
            error,
        )
    except Exception:
        # Raised, it would end the master; what is not folded still counts.
        _log.exception("the metrics of workers that are gone could not be folded")


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
