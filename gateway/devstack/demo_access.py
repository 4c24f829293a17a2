"""A way in for whoever pastes the printed requests: demo keys, made anew at each start.

``apikeys.json`` in the state folder is replaced, so that the keys of earlier starts end with them. A plain key is
written to ``demo.key`` beside it, which is right here and nowhere else: it opens a gateway on this machine with data
of this folder only, which whoever reads the file has in their hands anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gateway.devstack.premises import StackError
from gateway.identity.keys import ApiKey, encode, new_key
from gateway.operator import files

TENANT: Final = "demo"
KEY_FILE: Final = "demo.key"
_OTHER_TENANT: Final = "demo2"


@dataclass(frozen=True, slots=True)
class DemoAccess:
    """``environment`` is what the gateway gets, ``curl`` the options that let a request in, ``notes`` what to tell."""

    environment: Mapping[str, str]
    curl: str
    notes: tuple[str, ...] = field(repr=False, default=())


def demo_access(environ: Mapping[str, str], folder: Path) -> DemoAccess:
    """The way in that fits the ``AUTH_MODE``; with keys of one's own (``APIKEYS_*``) none is made.

    ``folder`` is the stack's own. Raises StackError when it cannot be written.
    """
    mode = environ.get("AUTH_MODE") or "api_key"
    if mode == "headers":
        trusted = environ.get("TRUSTED_PROXIES") or "127.0.0.1,::1"
        return DemoAccess(
            {"TRUSTED_PROXIES": trusted}, f"-H 'X-Tenant-ID: {TENANT}' -H 'X-Role: admin'"
        )
    if mode != "api_key":
        return DemoAccess({}, '-H "Authorization: Bearer $TOKEN"')
    if environ.get("APIKEYS_FILE") or environ.get("APIKEYS_SOURCE", "file") not in ("", "file"):
        return DemoAccess({"AUTH_MODE": mode}, '-H "Authorization: Bearer $KEY"')
    service, admin, other = (new_key() for _ in range(3))
    kept = (
        ApiKey.of(service, tenant_id=TENANT, roles=("service",), name="demo"),
        ApiKey.of(admin, tenant_id=TENANT, roles=("admin",), name="demo"),
        ApiKey.of(other, tenant_id=_OTHER_TENANT, roles=("service",), name="demo"),
    )
    path, plain = folder / "apikeys.json", folder / KEY_FILE
    try:
        with files.locked(path):
            for old in (path, plain):
                old.unlink(missing_ok=True)
            files.replace(path, encode({key.digest: key for key in kept}))
            files.replace(plain, f"{service}\n".encode())
    except (OSError, files.FileUnavailable) as error:
        raise StackError(f"cannot keep demo keys: {error}") from None
    return DemoAccess(
        {"AUTH_MODE": mode, "APIKEYS_FILE": str(path)},
        f"-H 'Authorization: Bearer {service}'",
        (
            f"Keys          {service}  service of {TENANT}, also in {plain}",
            f"              {admin}  admin of {TENANT}",
            f"              {other}  service of {_OTHER_TENANT}",
        ),
    )
