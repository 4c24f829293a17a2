"""A process that logs as a worker does, with secrets on its way; `test_logging` reads its lines.

Run with ``python -m tests.unit.gateway.logging_session``; NATS is where nobody listens.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import warnings

import structlog

from bridge import Bridge
from gateway.app import create_app
from gateway.bridge_config import bridge_config
from gateway.settings import Settings
from gateway.telemetry.logging import setup
from tests.unit.gateway.given import CALLER, DECIDE, DECIDE_BODY

SECRET = "sw0rdf1sh"
_PATIENCE_SECONDS = 20.0


def main() -> None:
    """Log a request of each kind and the lines of libraries, odd values among them."""
    settings = Settings.from_environ(os.environ)
    setup.configure(settings, lambda lost: None)
    bridge = Bridge(bridge_config(settings))
    bridge.start()
    end = time.monotonic() + _PATIENCE_SECONDS
    while bridge.health().last_error is None and time.monotonic() < end:
        time.sleep(0.01)
    app = create_app(settings, bridge)
    app.add_url_rule("/fail", "operational.fail", _fail)
    client = app.test_client()
    credentials = {"Authorization": f"Bearer {SECRET}", "X-API-Key": SECRET, "Cookie": SECRET}
    headers = {**CALLER, **credentials}
    client.post(DECIDE, json={**DECIDE_BODY, "metadata": {"password": SECRET}}, headers=headers)
    client.post(DECIDE, data=f'{{"password": "{SECRET}', headers=headers)
    client.post(DECIDE, json=DECIDE_BODY, headers=credentials)
    client.get("/nowhere", headers=headers)
    client.get("/livez", headers=headers)
    client.get("/fail", headers=headers)
    foreign = logging.getLogger("some.library")
    foreign.warning("several\nlines, %s", "and \x1b[31mcolours")
    foreign.error("a lone surrogate: %s", "\udc80")
    foreign.debug("not at this level")
    structlog.get_logger("some.other").warning("a large number", number=2**70, nested={1: object()})
    logging.getLogger("gunicorn.error").info("Booting worker")
    logging.getLogger("gunicorn.access").info("not twice")
    dying = threading.Thread(target=_die)
    dying.start()
    dying.join()
    warnings.warn("something will change", FutureWarning, stacklevel=1)
    bridge.close(2.0)


def _die() -> None:
    raise LookupError(f"password={SECRET}")


def _fail() -> str:
    password = SECRET
    raise RuntimeError(f"a view failed, with {len(password)} characters of a secret at hand")


if __name__ == "__main__":
    main()
