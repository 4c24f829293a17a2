"""``beamline-gateway streams``: what the audit of streams, buckets and permissions finds, asked as the gateway asks."""

from __future__ import annotations

import json
import sys

import click

from bridge import Bridge
from gateway.bridge_config import bridge_config
from gateway.operator.bus import (
    CONNECT_SECONDS,
    NAME,
    NOT_FOUND,
    UNAVAILABLE,
    fail,
    operator_settings,
)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def streams(as_json: bool) -> None:
    """Check streams, buckets and permissions; make what is missing. Exit code 1 if something blocks.

    To be run with the gateway's own NATS account, whose permissions are checked.
    """
    bridge = Bridge(bridge_config(operator_settings(), name=NAME))
    bridge.start()
    try:
        bridge.wait_ready(CONNECT_SECONDS)
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
