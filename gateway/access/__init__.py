"""What a caller may do: permissions and roles, and which tenants and policies are served at all."""

from gateway.access.allowlists import Allowlists
from gateway.access.authoriser import Authoriser
from gateway.access.permissions import Permission, required_by, requires
from gateway.access.roles import BucketRoles, FileRoles, PermissionSource

__all__ = [
    "Allowlists",
    "Authoriser",
    "BucketRoles",
    "FileRoles",
    "Permission",
    "PermissionSource",
    "required_by",
    "requires",
]
