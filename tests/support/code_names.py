"""What the product's code names: its identifiers, and its string constants as wholes.

A name in a comment, in a docstring or inside of a sentence is none: it would outlive the thing that it names. Left out
are modules that make documents, since what they say is what is to be checked, and those that hold the contract a second
time, to check the others against it.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from typing import Final

from tests.support.gateway_process import REPOSITORY

_PACKAGES: Final = ("gateway", "bridge")
_SECOND_COPIES: Final = ("gateway/documentation", "gateway/smoke/", "gateway/devstack/")


@functools.cache
def names_of_the_code() -> frozenset[str]:
    """All of them."""
    found = set[str]()
    for package in _PACKAGES:
        for path in (REPOSITORY / package).rglob("*.py"):
            if not path.relative_to(REPOSITORY).as_posix().startswith(_SECOND_COPIES):
                found.update(_names(ast.parse(path.read_text(encoding="utf-8"))))
    return frozenset(found)


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str(text)):
                yield text
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.keyword(arg=str(name)):
                yield name
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
