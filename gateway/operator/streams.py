"""``beamline-gateway streams``: what the audit of streams, buckets and permissions finds, asked as the gateway asks."""

from __future__ import annotations

import json
import sys
from typing import Final

import click

from bridge import Bridge, Health
from gateway.bridge_config import bridge_config
from gateway.operator.bus import (
    CONNECT_SECONDS,
    NAME,
    NOT_FOUND,
    UNAVAILABLE,
    fail,
    operator_settings,
)

_SLOW_SECONDS: Final = 15.0
"""What a cluster that has just started may take to make replicated streams."""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def streams(as_json: bool) -> None:
    """Check streams, buckets and permissions; make what is missing. Exit code 1 if something blocks.

    To be run with the gateway's own NATS account, whose permissions are checked.
    """
    bridge = Bridge(bridge_config(operator_settings(), name=NAME))
    bridge.start()
    try:
        if not bridge.wait_ready(CONNECT_SECONDS) and _is_only_slow(bridge.health()):
            bridge.wait_ready(_SLOW_SECONDS)
        health = bridge.health()
    finally:
        bridge.close(2.0)
    if not health.connected:
        fail(f"NATS: not connected ({health.last_error or 'no answer'})", UNAVAILABLE)
    if as_json:
        findings = [
            {"resource": f.resource, "message": f.message, "blocking": f.blocking}
            for f in health.findings
        ]
        click.echo(json.dumps({"ready": health.ready, "findings": findings}, indent=2))
    else:
        for finding in health.findings:
            click.echo(f"{'BLOCKS' if finding.blocking else 'note':<6}  {finding}")
        click.echo("ready" if health.ready else "not ready")
    sys.exit(0 if health.ready else NOT_FOUND)


def _is_only_slow(health: Health) -> bool:
    """Whether NATS has not answered, and has refused nothing: what an account may not ask is not answered either."""
    blocking = [finding for finding in health.findings if finding.blocking]
    refused = any(finding.resource == "account" for finding in blocking)
    return not refused and any("timeout" in finding.message for finding in blocking)
