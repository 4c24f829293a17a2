"""The devstack as ``beamline-gateway smoke --devstack`` wants it: new and empty, on free ports, with a collector.

Nothing of this shell's settings takes part, so that the checks say the same everywhere. Two tenants come in with keys
of their own, as in production.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway.devstack.premises import StackError
from gateway.devstack.stack import stack_running
from gateway.identity.keys import ApiKey, encode, new_key
from gateway.settings import variables
from gateway.smoke.target import StackFailed, Target

_TENANTS: Final = ("smoke", "smoke-other")
_ROLE: Final = "service"
_SPANS_AFTER_MS: Final = 100
_FOREIGN: Final = ("OTEL_", "OTLP_", "BEAMLINE_", "GUNICORN_")


@contextlib.contextmanager
def stack_for_smoke(otlp_endpoint: str, otlp_protocol: str) -> Iterator[Target]:
    """A stack for as long as the block runs; with an empty ``otlp_endpoint`` it sends no traces. Raises StackFailed."""
    with (
        tempfile.TemporaryDirectory(prefix="beamline-smoke-") as made,
        contextlib.ExitStack() as opened,
    ):
        folder = Path(made)
        own, other = keys = [new_key() for _ in _TENANTS]
        key_file = folder / "apikeys.json"
        key_file.write_bytes(_kept(keys))
        settings = {
            "AUTH_MODE": "api_key",
            "APIKEYS_FILE": str(key_file),
            "METRICS_TENANT_LABEL_ALLOWLIST": ",".join(_TENANTS),
            "OTEL_EXPORTER_OTLP_ENDPOINT": otlp_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": otlp_protocol,
            "OTEL_BSP_SCHEDULE_DELAY": str(_SPANS_AFTER_MS),
        }
        log = folder / "stack.log"
        out = opened.enter_context(log.open("w", encoding="utf-8"))
        try:
            running = opened.enter_context(
                stack_running(folder / "state", out, {**_neutral_environment(), **settings})
            )
        except StackError as error:
            raise StackFailed(str(error), log.read_text(encoding="utf-8")) from None
        yield Target(
            url=running.gateway_url,
            caller={"authorization": f"Bearer {own}"},
            other_caller={"authorization": f"Bearer {other}"},
            environ={"NATS_URL": running.nats_url},
            log=log,
        )


def _kept(keys: list[str]) -> bytes:
    kept = (
        ApiKey.of(key, tenant_id=tenant, roles=(_ROLE,), name="smoke")
        for key, tenant in zip(keys, _TENANTS, strict=True)
    )
    return encode({key.digest: key for key in kept})


def _neutral_environment() -> dict[str, str]:
    """This process's, without anything that configures a gateway."""
    ours = {variable.name for variable in variables()}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ours and not name.startswith(_FOREIGN)
    }
