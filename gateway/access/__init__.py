"""What a caller may do: which tenants are served and which policies may be named."""

from gateway.access.allowlists import Allowlists

__all__ = ["Allowlists"]
