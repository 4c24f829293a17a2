"""The usage stream holds one message for each tenant: what the receipts say, looked at in NATS itself."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from typing import Final

from bridge import Bridge, BridgeConfig, BridgeError, Bus
from gateway.bridge_config import bridge_config
from gateway.settings import Settings, SettingsError
from gateway.smoke.checks.once import Metered
from gateway.smoke.client import one_line
from gateway.smoke.failures import Failed, Failure, NotChecked
from gateway.smoke.session import Session

_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 15.0
_CLOSE_SECONDS: Final = 2.0


def check(session: Session) -> str:
    """Reads from the first receipt to the end of the stream, so that a second copy is found wherever it is."""
    if not session.nats:
        raise NotChecked("NATS_URL is not set: judged by the answers alone")
    metered = session.evidence(Metered)
    stored = _stored(session, metered)
    for tenant, receipt in metered.receipts.items():
        place = f"{receipt.stream}, message {receipt.seq}"
        if stored[tenant] == 0:
            raise Failed(Failure.NOT_STORED, f"{tenant}'s event is not on the stream ({place})")
        if stored[tenant] > 1:
            raise Failed(
                Failure.STORED_TWICE,
                f"{tenant}'s event is {stored[tenant]} times on the stream ({place} on)",
            )
    return f"one message for {' and for '.join(metered.receipts)}"


def _stored(session: Session, metered: Metered) -> Counter[str]:
    [stream] = {receipt.stream for receipt in metered.receipts.values()}
    first = min(receipt.seq for receipt in metered.receipts.values())
    bridge = Bridge(_config(session, stream))
    bridge.start()
    try:
        if not bridge.wait_ready(_CONNECT_SECONDS):
            raise Failed(
                Failure.NATS_UNAVAILABLE,
                one_line("; ".join(bridge.health().missing) or "no answer"),
            )
        deadline = time.monotonic() + _READ_SECONDS
        return bridge.run(
            lambda bus: _count(bus, stream, first, metered.usage_id, deadline), deadline
        )
    except BridgeError as error:
        raise Failed(Failure.NATS_UNAVAILABLE, one_line(f"{stream}: {error}")) from None
    finally:
        bridge.close(_CLOSE_SECONDS)


async def _count(bus: Bus, stream: str, seq: int, usage_id: str, deadline: float) -> Counter[str]:
    """How often the event is there, by tenant."""
    found: Counter[str] = Counter()
    while (entry := await bus.stored_from(stream, seq, deadline=deadline)) is not None:
        message, at = entry
        headers = {name.lower(): value for name, value in message.headers.items()}
        if headers.get("usage_id") == usage_id:
            found[headers.get("tenant_id", "")] += 1
        seq = at + 1
    return found


def _config(session: Session, stream: str) -> BridgeConfig:
    """A connection that makes and changes nothing, as the operator's commands have it."""
    try:
        settings = Settings.from_environ(session.environ, serving=False)
    except SettingsError as error:
        raise Failed(Failure.NATS_UNAVAILABLE, one_line("; ".join(error.problems))) from None
    return replace(
        bridge_config(settings, name="beamline-gateway-smoke"),
        streams=(),
        buckets=(),
        requests=(),
        listens=(),
        consumers=(),
        publishes=(),
        reads=(stream,),
    )
