"""The subjects of the wire contract that the devstack listens to and publishes on."""

from __future__ import annotations

from typing import Final

DECIDE: Final = "beamline.router.v1.decide"
ASSIGN: Final = "caf.exec.assign.v1"
ACK: Final = "caf.exec.assign.v1.ack"
RESULT: Final = "caf.exec.result.v1"
