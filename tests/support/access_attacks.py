"""The attacks of the corpus: requests as data, with the credentials that they abuse. See tests/corpus/README.md."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tests.support.access_tokens import SigningKey, hs256, part, valid_claims
from tests.support.corpus import CORPUS, Case, CorpusError, case_of
from tests.support.documents import ack_body

FOLDER: Final = CORPUS / "attacks"
API_KEY: Final = "api_key"
JWT: Final = "jwt"
SECRET: Final = "secret"
#: What an attack may be aimed at: a gateway of API keys, one of tokens by a JWKS, one of tokens by a shared secret.
TARGETS: Final = (API_KEY, JWT, SECRET)

_OWN_FIELDS: Final = frozenset({"at", "token", "raw"})
_TOKEN_FIELDS: Final = frozenset(
    "header claims header_text claims_text signed_by then_claims suffix".split()
)
_ABSENT: Final = "${absent}"
_CLOCK: Final = re.compile(r'"?\$\{now([+-]\d+)?\}"?')


@dataclass(frozen=True)
class Credentials:
    """What is good at one target: placeholder → key or token. All of them are secret."""

    named: Mapping[str, str]

    def fill(self, text: str) -> str:
        """The text with the credentials in their places."""
        for name, value in self.named.items():
            text = text.replace(f"${{{name}}}", value)
        return text


@dataclass(frozen=True)
class Provider:
    """Who signs the tokens of an attack."""

    signing: SigningKey
    stranger: SigningKey
    secret: str

    def token(self, document: Mapping[str, Any]) -> str:
        """The token that a case describes. Raises CorpusError."""
        if unknown := set(document) - _TOKEN_FIELDS:
            raise CorpusError(f"unknown fields of a token: {sorted(unknown)}")
        header = document.get("header_text") or _present(
            {**self.signing.header(), **document.get("header", {})}
        )
        claims = document.get("claims_text") or _present(
            {**valid_claims(), **document.get("claims", {})}
        )
        token = self._signed(document.get("signed_by", "provider"), header, claims)
        if "then_claims" in document:
            first, _, last = token.split(".")
            changed = part(_present({**valid_claims(), **document["then_claims"]}))
            token = f"{first}.{changed}.{last}"
        return token + str(document.get("suffix", ""))

    def _signed(self, by: str, header: object, claims: object) -> str:
        match by:
            case "provider":
                return self.signing.sign(header, claims)
            case "stranger":
                return self.stranger.sign(header, claims)
            case "nobody":
                return f"{part(header)}.{part(claims)}."
            case "public key as secret":
                return hs256(header, claims, self.signing.public_pem())
            case "jwk as secret":
                return hs256(header, claims, json.dumps(self.signing.jwk()).encode())
            case "empty secret":
                return hs256(header, claims, b"")
            case "secret":
                return hs256(header, claims, self.secret.encode())
            case _:
                raise CorpusError(f"nobody is called {by!r}")


@dataclass(frozen=True)
class Attack:
    """One request, raw or not, that must be refused or do no more than its own credential may."""

    name: str
    target: str
    case: Case
    raw: bytes | None


def attack_names() -> list[tuple[str, str]]:
    """Every attack and each target of it."""
    found = []
    for path in sorted(FOLDER.rglob("*.json")):
        at = json.loads(path.read_text(encoding="utf-8")).get("at", API_KEY)
        name = str(path.relative_to(FOLDER).with_suffix(""))
        found += [(name, target) for target in ([at] if isinstance(at, str) else at)]
    return found


def load_attack(name: str, target: str, credentials: Credentials, provider: Provider) -> Attack:
    """Read one attack for a target; its placeholders get their values. Raises CorpusError."""
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    try:
        document = json.loads(_with_clock(credentials.fill(text)))
        own = {field: document.pop(field) for field in _OWN_FIELDS & set(document)}
        _add_defaults(document, raw="raw" in own)
        headers = document.get("headers", {})
        pairs = list(headers.items()) if isinstance(headers, dict) else headers
        if "token" in own:
            pairs = [*pairs, ("Authorization", f"Bearer {provider.token(own['token'])}")]
        document["headers"] = [(key, value and _as_sent(value)) for key, value in pairs]
        case = case_of(name, document)
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{name}: {error!r}") from error
    raw = "\r\n".join(own["raw"]).encode() if "raw" in own else None
    return Attack(name, target, case, raw)


def _add_defaults(document: dict[str, Any], *, raw: bool) -> None:
    """An acknowledgement for the Router, whose every success is a message."""
    if raw:
        document.setdefault("path", "raw")
    elif "path" not in document:
        document["path"] = "/api/v1/acks"
        document.setdefault("body", ack_body())


def _as_sent(value: str) -> str:
    """What http.client writes as latin-1 is these characters as UTF-8."""
    return value.encode().decode("latin-1")


def _with_clock(text: str) -> str:
    now = int(time.time())
    return _CLOCK.sub(lambda found: str(now + int(found[1] or 0)), text)


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value != _ABSENT}
