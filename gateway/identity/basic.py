"""HTTP Basic for pages that people open in a browser: the password is the credential, the user name means nothing."""

from __future__ import annotations

import base64
from typing import Final

from gateway.identity.principal import RequestHeaders

BASIC_CHALLENGE: Final = 'Basic realm="beamline-gateway", charset="UTF-8"'


class PasswordAsBearer:
    """Headers whose Basic credentials read as ``Bearer``; everything else is as it was."""

    def __init__(self, headers: RequestHeaders) -> None:
        self._headers = headers

    def get(self, key: str, default: str, /) -> str:
        """See `RequestHeaders`."""
        value = self._headers.get(key, default)
        if key != "Authorization":
            return value
        scheme, _, encoded = value.partition(" ")
        if scheme.lower() != "basic":
            return value
        try:
            user_and_password = base64.b64decode(encoded.strip(), validate=True).decode("ascii")
        except ValueError:  # neither base64 nor ASCII
            return value  # which is no Bearer credential, and refused as such
        return f"Bearer {user_and_password.partition(':')[2]}"
