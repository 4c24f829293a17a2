"""The commands of those who run the gateway. What they share, and their exit codes: `gateway.operator.bus`."""

from __future__ import annotations

from typing import Final

COMMANDS: Final = {
    "apikeys": "apikeys",
    "audit": "audit",
    "backup": "backup",
    "dlq": "dlq",
    "restore": "backup",
    "roles": "roles",
    "sticky": "sticky",
    "streams": "streams",
}
"""Each command, and the module here that it is a name of: imported when it is called for."""
