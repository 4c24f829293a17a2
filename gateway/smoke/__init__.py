"""Smoke checks: does a running gateway keep what its contract says? Asked from outside, as its clients see it.

``beamline-gateway smoke`` runs the checks one after the other (`gateway.smoke.plan`), each a small module that returns
a sentence when all is well and raises `Failed` when not. Each failure has an exit code of its own
(`gateway.smoke.failures`). Nothing here knows how the gateway is made: names of metrics, spans and headers are the
contract's (`gateway.smoke.contract`), so that a name that changed by mistake is found.
"""
