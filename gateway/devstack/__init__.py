"""What a laptop lacks: a NATS server, a reference Router and a reference worker, and all of it at once.

For development and tests; a production gateway imports nothing of this. The reference Router is strict:
it refuses whatever the wire contract does not allow, so that a gateway that satisfies it satisfies the
real one. `gateway.devstack.stack.run_dev` is what ``beamline-gateway dev`` runs.
"""
