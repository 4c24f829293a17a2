"""Planted canaries: what the tests send and keep secret, recognisable wherever it turns up.

All carry one word that nothing else has. `leaks_in` finds it in raw bytes (a log, a metric file, an OTLP export):
upper or lower case, and encoded in base64, as credentials travel. It finds whatever looks like an API key or a token
as well, for those that tests make are random.
"""

from __future__ import annotations

import base64
import re
from typing import Final

MARK: Final = "plantedcanary7c41"

SECRET: Final = f"secret-{MARK}-of-every-gateway"
TEXT: Final = f"text-{MARK}"
MAIL: Final = f"{MARK}.person@example.org"

#: What any client may send and nobody may keep.
HEADERS: Final = {
    "User-Agent": f"agent-{MARK}/1.0",
    "Cookie": f"login={SECRET}",
    "From": MAIL,
}

_AROUND: Final = 60


def _in_base64(word: bytes) -> list[bytes]:
    """What of a base64 text is certain if the word is in what was encoded: one for each place in a group of three."""
    texts = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + word)
        whole = (before + len(word)) // 3 * 4
        texts.append(encoded[-(-before * 8 // 6) : whole])
    return texts


_LOOKS: Final = re.compile(
    b"|".join(
        [
            b"(?i:" + MARK.encode() + b")",
            *(re.escape(text) for text in _in_base64(MARK.encode())),
            rb"\bblk_[A-Za-z0-9_-]{20,}",
            rb"\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{20,}",
        ]
    )
)


def leaks_in(content: bytes) -> list[str]:
    """Each canary or credential in it, with what stands around it."""
    return [
        content[max(found.start() - _AROUND, 0) : found.end() + _AROUND].decode(errors="replace")
        for found in _LOOKS.finditer(content)
    ]
