"""The corpus: requests as data, one file a case. The format is described in tests/corpus/README.md."""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.support.documents import now_ms
from tests.support.http_client import JSON, Answer, Client

CORPUS: Final = Path(__file__).resolve().parents[1] / "corpus"

_FIELDS: Final = frozenset(
    "title method path headers body body_text body_base64 body_fill expect".split()
)
_BODIES: Final = ("body", "body_text", "body_base64", "body_fill")
_EXPECTED: Final = frozenset({"status", "code", "message_contains"})
_FILL: Final = frozenset({"prefix", "unit", "suffix", "bytes"})

_QUOTED_CLOCK: Final = re.compile(r'"\$\{now_ms([+-]\d+)?\}"')
_WORD: Final = re.compile(r"\$\{(unique|uuid)\}")


class CorpusError(ValueError):
    """A case file that does not keep to the format: a mistake in the corpus, not in the gateway."""


@dataclass(frozen=True)
class Expected:
    """One acceptable answer: its status, and for an error its code and parts of its message."""

    status: int
    code: str | None
    message_contains: tuple[str, ...]

    def fits(self, answer: Answer) -> bool:
        """Whether the answer is this one."""
        if answer.status != self.status or answer.code != self.code:
            return False
        message = answer.json()["error"]["message"] if self.message_contains else ""
        return all(part in message for part in self.message_contains)


@dataclass(frozen=True)
class Case:
    """One request and what must come back."""

    name: str
    title: str
    method: str
    path: str
    headers: tuple[tuple[str, str | None], ...]
    body: bytes | None
    expected: tuple[Expected, ...]

    def send(self, client: Client) -> Answer:
        """Send it on a client that already speaks for a tenant and a role.

        A header of the case replaces the client's own of that name; None takes it away.
        """
        headers = [*self.headers]
        if self.body is not None and not any(name.lower() == "content-type" for name, _ in headers):
            headers.append(("Content-Type", JSON))
        named = {name.lower() for name, _ in headers}
        own = [(name, value) for name, value in client.headers.items() if name.lower() not in named]
        sent = own + [(name, value) for name, value in headers if value is not None]
        with Client(client.host, client.port, headers={}) as bare:
            return bare.request(self.method, self.path, body=self.body, headers=sent)

    def check(self, answer: Answer) -> None:
        """Fail unless the answer is one of those expected."""
        assert any(one.fits(answer) for one in self.expected), (
            f"{self.name}: {self.title}\nexpected {' or '.join(map(str, self.expected))}\ngot {answer}"
        )


def case_names(kind: str) -> list[str]:
    """The names of all ``valid`` or ``invalid`` cases: their paths below the corpus, without suffix."""
    folder = CORPUS / kind
    return sorted(str(path.relative_to(CORPUS).with_suffix("")) for path in folder.rglob("*.json"))


def load(name: str) -> Case:
    """Read one case; its placeholders get new values each time. Raises CorpusError."""
    text = (CORPUS / f"{name}.json").read_text(encoding="utf-8")
    try:
        document = json.loads(text)
        return case_of(name, document)
    except (ValueError, KeyError, TypeError) as error:
        raise CorpusError(f"{name}: {error!r}") from error


def all_cases(kind: str) -> Iterator[Case]:
    """Every case of a kind, loaded."""
    return (load(name) for name in case_names(kind))


def case_of(name: str, document: Mapping[str, Any]) -> Case:
    """The case that a document of the format describes. Raises CorpusError, ValueError, KeyError or TypeError."""
    if unknown := set(document) - _FIELDS:
        raise CorpusError(f"{name}: unknown fields {sorted(unknown)}")
    if not document["title"]:
        raise CorpusError(f"{name}: no title")
    headers = document.get("headers", {})
    pairs = (
        list(headers.items()) if isinstance(headers, dict) else [tuple(pair) for pair in headers]
    )
    expected = document["expect"].get("any_of", [document["expect"]])
    return Case(
        name=name,
        title=document["title"],
        method=document.get("method", "POST"),
        path=document["path"],
        headers=tuple((key, None if value is None else _filled(value)) for key, value in pairs),
        body=_body(name, document),
        expected=tuple(_expected(name, one) for one in expected),
    )


def _body(name: str, document: Mapping[str, Any]) -> bytes | None:
    given = [field for field in _BODIES if field in document]
    if len(given) > 1:
        raise CorpusError(f"{name}: {' and '.join(given)} at once")
    if not given:
        return None
    value = document[given[0]]
    match given[0]:
        case "body":
            return _filled(json.dumps(value, ensure_ascii=False)).encode()
        case "body_text":
            return _filled(value).encode()
        case "body_base64":
            return base64.b64decode(str(value), validate=True)
        case _:
            return _fill(name, value)


def _fill(name: str, fill: Mapping[str, Any]) -> bytes:
    if set(fill) != _FILL:
        raise CorpusError(f"{name}: body_fill has exactly {sorted(_FILL)}")
    prefix, suffix = _filled(fill["prefix"]).encode(), _filled(fill["suffix"]).encode()
    unit = str(fill["unit"]).encode()
    count = (int(fill["bytes"]) - len(prefix) - len(suffix)) // len(unit)
    return prefix + unit * count + suffix


def _expected(name: str, document: Mapping[str, Any]) -> Expected:
    if unknown := set(document) - _EXPECTED:
        raise CorpusError(f"{name}: unknown expectations {sorted(unknown)}")
    return Expected(
        status=document["status"],
        code=document.get("code"),
        message_contains=tuple(document.get("message_contains", ())),
    )


def _filled(text: str) -> str:
    text = _QUOTED_CLOCK.sub(lambda found: str(now_ms() + int(found[1] or 0)), text)
    return _WORD.sub(
        lambda found: uuid.uuid4().hex if found[1] == "unique" else str(uuid.uuid4()), text
    )
