"""docs/CLIENTS.md holds the programs of docs/clients as they are, and speaks of codes that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.errors import ErrorCode

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "CLIENTS.md").read_text(encoding="utf-8")
FILES = sorted(path.name for path in (DOCS / "clients").iterdir() if path.is_file())
INCLUDED = dict(
    re.findall(r"<!-- docs/clients/(\S+) -->\n```\w+\n(.*?)```\n", PAGE, flags=re.DOTALL)
)
SETTLED_BY_OTHERS = {"in_progress", "idempotency_conflict", "rate_limit_exceeded"}


def test_the_page_has_every_file_and_no_other() -> None:
    assert sorted(INCLUDED) == FILES
    assert {Path(name).suffix for name in FILES} == {".sh", ".py", ".java"}


@pytest.mark.parametrize("name", FILES)
def test_a_program_on_the_page_is_its_file(name: str) -> None:
    assert INCLUDED[name] == (DOCS / "clients" / name).read_text(encoding="utf-8")


def test_every_code_that_the_recipe_names_is_one_of_the_gateway() -> None:
    recipe = PAGE[PAGE.index("| you see |") : PAGE.index("**Never repeat**")]
    named = set(re.findall(r"^\| \d{3} `([a-z_]+)`", recipe, flags=re.MULTILINE))
    assert named >= {"outcome_unknown", "timeout", *SETTLED_BY_OTHERS}
    assert named <= {str(code) for code in ErrorCode}
