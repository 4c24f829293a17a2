"""What tenants and roles may be called (wire contract, "Limits").

Apart from `gateway.identity`, because the settings need it, and with them gunicorn's master: what that imports, every
worker starts with, and the metrics must be imported in the workers only.
"""

from __future__ import annotations

import re
from typing import Final

TENANT_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
ROLE_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
