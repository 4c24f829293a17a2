"""The server configuration of docs/NATS_ACCOUNT.md, as somebody copies it from there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "NATS_ACCOUNT.md"
_OTHERS: Final = "# The Router and the workers"
ROUTER_PASSWORD: Final = "of-the-router"
_ROUTER: Final = f'{{ user: "router", password: "{ROUTER_PASSWORD}" }}'

GATEWAY_LOGIN: Final = {"NATS_USER": "gateway", "NATS_PASSWORD": "change-me"}
BACKUP_LOGIN: Final = {"NATS_USER": "backup", "NATS_PASSWORD": "change-me"}
OPERATOR_LOGIN: Final = {"NATS_USER": "operator", "NATS_PASSWORD": "change-me"}


def documented_account() -> str:
    """The configuration, with a user ``router`` who may do everything where it says so."""
    text = _DOCUMENT.read_text("utf-8")
    block = re.search(r"^```\n(accounts.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block is not None
    assert _OTHERS in block[1]
    return block[1].replace(_OTHERS, f"{_ROUTER}\n{_OTHERS}")
