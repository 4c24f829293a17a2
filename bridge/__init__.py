"""The NATS bridge: one asyncio loop on a thread of its own, one connection, one way in.

These names are all that other packages may use.
"""

from bridge.bridge import Bridge, Health, Service
from bridge.bucket import Bucket, Entry, Taken
from bridge.bus import Bus
from bridge.config import BridgeConfig, BucketSpec, ConsumerSpec, StreamSpec, Tls
from bridge.consumer import Delivery, Reject
from bridge.errors import BridgeError, Closed, NotSent, Refusal, Refused, Unknown
from bridge.levels import ConsumerLevel, StreamLevel
from bridge.messages import Message, PubAck
from bridge.observer import NoObserver, Observer, Tell, Turn
from bridge.permissions import covers as subject_covers
from bridge.permissions import required_permissions
from bridge.resources import Finding
from bridge.snapshots import Snapshot, Snapshots

__all__ = [
    "Bridge",
    "BridgeConfig",
    "BridgeError",
    "Bucket",
    "BucketSpec",
    "Bus",
    "Closed",
    "ConsumerLevel",
    "ConsumerSpec",
    "Delivery",
    "Entry",
    "Finding",
    "Health",
    "Message",
    "NoObserver",
    "NotSent",
    "Observer",
    "PubAck",
    "Refusal",
    "Refused",
    "Reject",
    "Service",
    "Snapshot",
    "Snapshots",
    "StreamLevel",
    "StreamSpec",
    "Taken",
    "Tell",
    "Tls",
    "Turn",
    "Unknown",
    "required_permissions",
    "subject_covers",
]
