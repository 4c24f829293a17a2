"""One stable name for several values: length-delimited, so that ``a-b`` + ``c`` is not ``a`` + ``b-c``."""

from __future__ import annotations

import hashlib


def stable_digest(*parts: str | bytes) -> str:
    """64 hex digits, the same for the same parts in every process and every version of Python."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = part.encode() if isinstance(part, str) else part
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    return digest.hexdigest()
