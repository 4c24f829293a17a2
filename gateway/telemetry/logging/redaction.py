"""Redaction: what no log line may hold, whoever wrote it.

Credentials by what they look like (API keys, JWTs, NATS seeds, PEM blocks, user and password of a URL, the values of
the headers and parameters that carry them), this process' own secrets by their value, and e-mail addresses, which are
somebody's. A text that is none of these passes as it is: redaction is the last net, and what is logged at all is ids
and names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote, unquote

from gateway.settings import Settings

HIDDEN: Final = "***"
_SHORTEST_SECRET: Final = 4
"""A shorter one would blacken half of every text, and is no secret anyway."""

_KEY: Final = "blk_[0-9a-z]{8}_"
"""An API key up to its secret part. Without the last underscore it is a key's name, which access lines hold."""

# None of them asks for the beginning of a word: in the repr of bytes a line end is written as two letters.
_RULES: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (
        re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?(?:-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL),
        rf"-----BEGIN \1----- {HIDDEN}",
    ),
    # To the last @ before the path: a password may hold one.
    (re.compile(r"://[^\s/?#]*@"), f"://{HIDDEN}@"),
    # Of a header everything to the end of its line, which in the repr of bytes is written \r\n.
    (
        re.compile(
            r"((?:proxy-)?authorization|x-api-key|api-key|(?:set-)?cookie|x-[a-z-]*token)"
            r"(['\"]?\s*[:=,]\s*(?:b(?=['\"]))?)"
            r"(?:(['\"])(?:(?!\3).)*|(?:(?!\\[rn])[^\r\n])+)",
            re.IGNORECASE,
        ),
        rf"\1\2\3{HIDDEN}",
    ),
    # Not "bearer credential": a word of small letters is no credential.
    (
        re.compile(r"([Bb]earer|BEARER|[Bb]asic|BASIC)\s+(?![a-z]+\b)[A-Za-z0-9._~+/=-]{6,}"),
        rf"\1 {HIDDEN}",
    ),
    (re.compile(rf"({_KEY})[A-Za-z0-9_-]+"), rf"\1{HIDDEN}"),
    (re.compile(r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    (re.compile(r"(?<![A-Z0-9])S[UANCOX][A-Z2-7]{40,}"), HIDDEN),
    (
        re.compile(
            r"((?:password|passwd|secret|token|api[_-]?key|seed|private[_-]?key))"
            r"(['\"]\s*[:=]\s*|=)(?:(['\"])(?:(?!\3).)*|[^\s,;&'\"})\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2\3{HIDDEN}",
    ),
    # Bounded, so that a long word without @ costs no more than its length times this.
    (
        re.compile(r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b"),
        f"{HIDDEN}@{HIDDEN}",
    ),
)
_KEYS: Final = re.compile(
    r"authorization|cookie|password|passwd|secret|token|api[_-]?key|seed|private[_-]?key|credential",
    re.IGNORECASE,
)
"""Names of fields whose values are hidden whatever they look like."""

_SIGNS: Final = (
    "@", "eyJ", "-----begin", "authorization", "cookie", "bearer", "basic",
    "password", "passwd", "secret", "token", "api-key", "api_key", "apikey", "seed", "private", "credential",
)  # fmt: skip
"""One of them is in every text that a rule changes, but for API keys and seeds. To look for them costs a tenth of the
rules."""
_OTLP_HEADERS: Final = ("OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS")
_KEY_OR_SEED: Final = re.compile(rf"{_KEY}|S[UANCOX][A-Z2-7]{{40}}")


class Redactor:
    """Hides credentials, and the secrets that it was made with, in texts and in what holds texts."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = _spellings(secrets)
        # As they look inside of a line of JSON, whichever way it was written.
        written = {
            json.dumps(secret, ensure_ascii=ascii_only)[1:-1]
            for secret in self._secrets
            for ascii_only in (True, False)
        }
        self._signs = tuple(sign.lower() for sign in (*_SIGNS, *written))

    def concerns(self, line: str) -> bool:
        """Whether a line of JSON may hold something to hide. Quick, and rather yes than no."""
        small = line.lower()
        return any(sign in small for sign in self._signs) or _KEY_OR_SEED.search(line) is not None

    def text(self, text: str) -> str:
        """``text`` without what must not be seen."""
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        for pattern, shown in _RULES:
            text = pattern.sub(shown, text)
        return text

    def value(self, value: Any) -> Any:
        """The same for texts in dicts and lists; of other things for what they look like when printed."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.value(name): HIDDEN
                if isinstance(name, str) and isinstance(held, str) and _KEYS.search(name)
                else self.value(held)
                for name, held in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.value(item) for item in value]
        if value is None or isinstance(value, bool | int | float):
            return value
        return self.text(str(value))


def secrets_in_force(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The secrets of this process, to make its redactor with."""
    secrets = [settings.nats_password, settings.nats_token, settings.jwt_secret]
    collectors = (settings.otlp_endpoint or "", settings.otlp_traces_endpoint or "")
    urls = (*settings.nats_url, *collectors)
    secrets += [part for url in urls for part in _userinfo(url)]
    for variable in _OTLP_HEADERS:
        pairs = environ.get(variable, "").split(",")
        secrets += [pair.partition("=")[2].strip() for pair in pairs]
    return [secret for secret in secrets if secret]


def _userinfo(url: str) -> list[str]:
    """What of a URL is secret: the password, or the token that stands alone before the @."""
    userinfo, found, _ = url.partition("://")[2].rpartition("@")
    _, colon, password = userinfo.partition(":")
    return [password if colon else userinfo] if found else []


def _spellings(secrets: Iterable[str]) -> tuple[str, ...]:
    """The secrets as they are, and as a URL has them; longer ones first, as one may hold another."""
    known = {
        spelling
        for secret in secrets
        for spelling in (secret, quote(secret, safe="", errors="replace"), unquote(secret))
        if len(spelling) >= _SHORTEST_SECRET
    }
    return tuple(sorted(known, key=len, reverse=True))
