"""Status: what an instance tells people about itself, over all of its workers."""

from gateway.status.overview import Status

__all__ = ["Status"]
