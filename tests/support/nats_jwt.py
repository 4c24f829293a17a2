"""NATS with decentralised accounts: an operator, an account with JetStream, a user and its credentials file."""

from __future__ import annotations

import base64
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped]


@dataclass(frozen=True)
class DecentralisedAuth:
    """The server's configuration, and the file that lets a client in."""

    config: str
    credentials: Path


def make_decentralised_auth(folder: Path) -> DecentralisedAuth:
    """New keys for everybody, signed from the operator down; the file is written into the folder."""
    operator, system, account, user = (
        _new_key(prefix)
        for prefix in (
            nkeys.PREFIX_BYTE_OPERATOR,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_ACCOUNT,
            nkeys.PREFIX_BYTE_USER,
        )
    )
    unlimited = {"subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1}
    limits = {**unlimited, "exports": -1, "wildcards": True}
    storage = {"mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1}
    system_id, account_id = _public(system), _public(account)
    tokens = {
        "operator": _sign(
            operator, operator, {"type": "operator", "version": 2, "system_account": system_id}
        ),
        "system": _sign(operator, system, {"type": "account", "version": 2, "limits": limits}),
        "account": _sign(
            operator, account, {"type": "account", "version": 2, "limits": {**limits, **storage}}
        ),
        "user": _sign(
            account, user, {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1}
        ),
    }
    config = "\n".join(
        (
            f"operator: {tokens['operator']}",
            f"system_account: {system_id}",
            "resolver: MEMORY",
            "resolver_preload: {",
            f"  {system_id}: {tokens['system']}",
            f"  {account_id}: {tokens['account']}",
            "}",
        )
    )
    credentials = folder / "gateway.creds"
    credentials.touch(mode=0o600)
    credentials.write_text(
        "-----BEGIN NATS USER JWT-----\n"
        f"{tokens['user']}\n"
        "------END NATS USER JWT------\n\n"
        "-----BEGIN USER NKEY SEED-----\n"
        f"{user.seed.decode()}\n"
        "------END USER NKEY SEED------\n"
    )
    return DecentralisedAuth(config, credentials)


def _new_key(prefix: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _public(key: nkeys.KeyPair) -> str:
    public: str = key.public_key.decode()
    return public


def _sign(issuer: nkeys.KeyPair, subject: nkeys.KeyPair, claims: dict[str, Any]) -> str:
    body = {
        "jti": _encode(os.urandom(16)),
        "iat": int(time.time()),
        "iss": _public(issuer),
        "name": claims["type"],
        "sub": _public(subject),
        "nats": claims,
    }
    signed = ".".join(
        _encode(json.dumps(part).encode()) for part in ({"typ": "JWT", "alg": "ed25519-nkey"}, body)
    )
    return f"{signed}.{_encode(issuer.sign(signed.encode()))}"


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
