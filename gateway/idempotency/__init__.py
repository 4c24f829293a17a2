"""Once: what makes two requests the same one, and what holds that they happen once.

======================  ==========================================================================
`keys`                  ``tenant_id + id``: the only maker of keys
`fingerprint`           what the client meant, as a hash
`records`               what the bucket holds for a key
`claims`                create-first-wins, for effects that are publishes
`leases`                one call in flight a lease, for effects that are calls
`replays`               finished outcomes of this worker, so that a repeat costs no hop
======================  ==========================================================================
"""

from gateway.idempotency.claims import Conflict, Held, claim, find
from gateway.idempotency.fingerprint import fingerprint
from gateway.idempotency.keys import (
    HttpId,
    KeyType,
    digest,
    mark_http_id,
    result_key,
    result_keys,
    usage_pair,
)
from gateway.idempotency.leases import InProgress, Keep, Leases, Verdict
from gateway.idempotency.records import BUCKET, Outcome, Record, State
from gateway.idempotency.replays import Replay, Replays

__all__ = [
    "BUCKET",
    "Conflict",
    "Held",
    "HttpId",
    "InProgress",
    "Keep",
    "KeyType",
    "Leases",
    "Outcome",
    "Record",
    "Replay",
    "Replays",
    "State",
    "Verdict",
    "claim",
    "digest",
    "find",
    "fingerprint",
    "mark_http_id",
    "result_key",
    "result_keys",
    "usage_pair",
]
