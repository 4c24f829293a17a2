"""Commands and requests in the documents: in blocks, and between backticks in a sentence.

Between backticks, what begins with a word in small letters and goes on is a command. ``apikeys list | revoke`` are two,
``roles check FILE`` is one of ``beamline-gateway``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from gateway.cli import main
from tests.support.document_text import blocks, for_readers, name_of, prose, spans_in

GATEWAY: Final = "beamline-gateway"
_METHODS: Final = ("GET", "POST")
#: A piece of a file that a link leads to a line of.
_QUOTED: Final = re.compile(r"\[`[^`]+`\]\([^)]+#L\d+(?:-L\d+)?\)")
_ALTERNATIVES: Final = re.compile(r"\{(\w+(?:\|\w+)+)\}")
_COMMAND: Final = re.compile(r"[a-z.][a-z0-9./-]* \S")
_SEPARATORS: Final = ";&|\n"


@dataclass(frozen=True, slots=True)
class Command:
    """The words of one; ``document`` is where it was first seen."""

    document: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0]

    @property
    def arguments(self) -> list[str]:
        return list(self.words[1:])

    def __str__(self) -> str:
        return " ".join(self.words)


@dataclass(frozen=True, slots=True)
class Request:
    """A method and a path, which may hold ``{names}`` and a query."""

    document: str
    method: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def commands_in_sentences() -> list[Command]:
    """Those between backticks, each once."""
    found = dict[tuple[str, ...], Command]()
    for document in for_readers():
        for span in _spoken(document):
            if _COMMAND.match(span):
                for words in _readings(span):
                    found.setdefault(words, Command(name_of(document), words))
    return list(found.values())


def commands_in_blocks() -> list[Command]:
    """Those in blocks that say ``sh``, without assignments, substitutions and comments; programs (``#!``) are none."""
    return [
        Command(block.document, tuple(words))
        for document in for_readers()
        for block in blocks(document)
        if block.language == "sh" and not block.text.startswith("#!")
        for words in simple_commands(block.text)
    ]


def requests() -> list[Request]:
    """Those between backticks, each once; ``{a|b}`` in a path are several."""
    found = dict[tuple[str, str], Request]()
    for document in for_readers():
        for span in _spoken(document):
            method, _, path = span.partition(" ")
            if method in _METHODS and path.startswith("/"):
                for each in _alternatives(path.removesuffix("/…")):
                    found.setdefault((method, each), Request(name_of(document), method, each))
    return list(found.values())


def simple_commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a piece of shell, without assignments, substitutions and comments."""
    text = re.sub(r"\$\([^)]*\)", "$", text.replace("\\\n", " "))
    lexer = shlex.shlex(
        re.sub(r"(^|\s)#\s.*", r"\1", text), posix=True, punctuation_chars=_SEPARATORS
    )
    lexer.whitespace, lexer.commenters, lexer.whitespace_split = " \t\r", "", True
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if set(token) <= set(_SEPARATORS):
            if words:
                yield words
            words = []
        elif words or not re.match(r"\w+=|export$", token):
            words.append(token)


def parsed(command: Command) -> tuple[click.Command, bool]:
    """The command of ``beamline-gateway``, and whether it is whole: false for a mere name, such as ``dlq show``.

    Raises click.UsageError if there is no such command or option.
    """
    found: click.Command = main
    words = command.arguments
    while isinstance(found, click.Group):
        if not words:
            return found, False
        command_below = below(found, words[0])
        if command_below is None:
            raise click.UsageError(f"there is no {words[0]}: {command}")
        found = command_below
        del words[0]
    try:
        found.make_context(found.name, words)
    except click.MissingParameter:
        return found, False
    except (
        click.BadParameter
    ):  # a stand-in for a file, say: whoever runs it puts something in its place
        pass
    return found, True


def options_of(command: click.Command) -> Iterator[str]:
    """The options of a command and of those below it."""
    for parameter in command.params:
        yield from parameter.opts
    if isinstance(command, click.Group):
        for name in command.list_commands(click.Context(command)):
            if (each := below(command, name)) is not None:
                yield from options_of(each)


def below(group: click.Group, name: str) -> click.Command | None:
    """The command of that name in a group, which may import it now."""
    return group.get_command(click.Context(group), name)


def _spoken(document: Path) -> list[str]:
    return spans_in(_QUOTED.sub("", prose(document)))


def _readings(span: str) -> Iterator[tuple[str, ...]]:
    first, *others = span.split(" | ")
    words = shlex.split(first)
    if isinstance(below(main, words[0]), click.Group):
        words.insert(0, GATEWAY)
    yield tuple(words)
    for other in others:
        yield (*words[:-1], *shlex.split(other))


def _alternatives(path: str) -> Iterator[str]:
    found = _ALTERNATIVES.search(path)
    if found is None:
        yield path
        return
    for each in found[1].split("|"):
        yield from _alternatives(path.replace(found[0], each, 1))
