"""A devstack process: services on a bridge until SIGTERM or SIGINT.

Reads ``NATS_URL`` (a comma list), ``NATS_USER`` and ``NATS_PASSWORD``, ``NATS_TOKEN``,
``NATS_CREDENTIALS_FILE``, ``NATS_TLS_CA_FILE``, ``NATS_TLS_CERT_FILE``, ``NATS_TLS_KEY_FILE`` and
``LOG_LEVEL``, as the gateway does, and where traces go (`gateway.devstack.tracing`). Without NATS it waits for it.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Final

from bridge import Bridge, BridgeConfig, Service, Tls
from gateway.devstack.tracing import ServiceTracing

_CLOSE_SECONDS: Final = 3.0
_ENDING: Final = frozenset({signal.SIGTERM, signal.SIGINT})


def run_services(name: str, services: Sequence[Service], environ: MutableMapping[str, str]) -> int:
    """Run ``services`` in this process until it is told to end; the exit status.

    Must be called on the main thread before any other is started: the signals are blocked for all of
    them and waited for here.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    levels = logging.getLevelNamesMapping()
    logging.basicConfig(
        # A wrong LOG_LEVEL is the gateway's to complain about.
        level=levels.get(environ.get("LOG_LEVEL", "").upper(), logging.INFO),
        stream=sys.stdout,
        format="%(levelname)-7s %(message)s",
    )
    tracing = ServiceTracing(name, environ)
    bridge = Bridge(bridge_config(name, environ), observer=tracing.observer, services=services)
    bridge.start()
    try:
        signal.sigwait(_ENDING)
    finally:
        bridge.close(_CLOSE_SECONDS)
        tracing.close()
    return 0


def bridge_config(name: str, environ: Mapping[str, str]) -> BridgeConfig:
    """The connection that ``environ`` describes."""
    ca, cert, key, credentials = (
        Path(value) if (value := environ.get(variable)) else None
        for variable in (
            "NATS_TLS_CA_FILE",
            "NATS_TLS_CERT_FILE",
            "NATS_TLS_KEY_FILE",
            "NATS_CREDENTIALS_FILE",
        )
    )
    urls = environ.get("NATS_URL", "nats://127.0.0.1:4222").split(",")
    return BridgeConfig(
        servers=tuple(url.strip() for url in urls if url.strip()),
        name=name,
        user=environ.get("NATS_USER") or None,
        password=environ.get("NATS_PASSWORD") or None,
        token=environ.get("NATS_TOKEN") or None,
        credentials_file=credentials,
        tls=Tls(ca_file=ca, cert_file=cert, key_file=key) if ca or cert else None,
    )
