"""What a wheel must carry, and what is written in two places."""

import configparser
import re
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("bridge", "gateway")


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _package_data(package: str) -> list[str]:
    section = _setup_cfg()["options.package_data"]
    return [*section["*"].split(), *section.get(package, "").split()]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_that_is_not_python_is_declared_as_package_data(package: str) -> None:
    patterns = [pattern.removeprefix("**/") for pattern in _package_data(package)]
    undeclared = [
        str(path.relative_to(ROOT))
        for path in (ROOT / package).rglob("*")
        if path.is_file()
        and path.suffix not in {".py", ".pyc"}
        and not any(fnmatch(path.name, pattern) for pattern in patterns)
    ]
    assert undeclared == []


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_folder_with_modules_is_a_package(package: str) -> None:
    """Setuptools leaves a folder without `__init__.py` out of the wheel, without a word."""
    folders = {path.parent for path in (ROOT / package).rglob("*.py")}
    assert [str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()] == []


def test_the_changelog_has_an_unreleased_section_first() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"


def test_the_licence_is_the_one_that_the_metadata_names() -> None:
    assert _setup_cfg()["metadata"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
