"""What the tests of the client programs share: the programs, with Java's compiled once."""

from __future__ import annotations

import pytest

from tests.clients.programs import LANGUAGES, Programs, compile_java


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """Every language; one whose runtime is missing fails, and is not skipped."""
    classes = tmp_path_factory.mktemp("classes")
    compile_java(classes)
    return Programs(classes)


@pytest.fixture(params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    """Each of them in turn."""
    name: str = request.param
    return name
