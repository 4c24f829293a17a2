"""What setup.cfg allows, what the locks pin and what the interpreter really needs agree."""

import configparser
import re
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[3]
LOCK = "constraints.txt"
LOWEST = "constraints-min.txt"
PRODUCT = "beamline-gateway"


def _setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def _requirements(lines: str) -> list[Requirement]:
    stripped = (line.strip() for line in lines.splitlines())
    return [Requirement(line) for line in stripped if line and not line.startswith("#")]


def _install_requires() -> list[Requirement]:
    return _requirements(_setup_cfg()["options"]["install_requires"])


def _extra(name: str) -> list[Requirement]:
    """The requirements of an extra, those of the extras that it includes too."""
    found = []
    for requirement in _requirements(_setup_cfg()["options.extras_require"][name]):
        if requirement.name == PRODUCT:
            found += [inner for extra in sorted(requirement.extras) for inner in _extra(extra)]
        else:
            found.append(requirement)
    return found


def _pins(lock: str) -> dict[str, Version]:
    pins: dict[str, Version] = {}
    for requirement in _requirements((ROOT / lock).read_text()):
        (pin,) = requirement.specifier
        pins[canonicalize_name(requirement.name)] = Version(pin.version)
    return pins


def _lower_bound(requirement: Requirement) -> Version | None:
    bounds = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
    return bounds[0] if len(bounds) == len(requirement.specifier) == 1 else None


@pytest.mark.parametrize("lock", [LOCK, LOWEST])
def test_a_lock_holds_exact_versions_and_nothing_else(lock: str) -> None:
    """No index, host, path or option: whoever installs chooses where from."""
    line_form = re.compile(r"[a-z0-9-]+==[A-Za-z0-9.+!]+( ; \(?[a-z_]+ [^@/]+)?")
    lines = (ROOT / lock).read_text().splitlines()
    strange = [line for line in lines if not line.startswith("#") and not line_form.fullmatch(line)]
    assert strange == []
    assert "://" not in (ROOT / lock).read_text()


@pytest.mark.parametrize("requirement", _install_requires(), ids=lambda r: r.name)
def test_a_lower_bound_is_the_version_that_the_min_environment_tests(
    requirement: Requirement,
) -> None:
    bound = _lower_bound(requirement)
    assert bound is not None, f"{requirement} should have one lower bound and no other"
    assert _pins(LOWEST)[canonicalize_name(requirement.name)] == bound


def test_the_lock_pins_versions_that_setup_cfg_allows() -> None:
    pins = _pins(LOCK)
    refused = [
        f"{requirement} is pinned to {pins[canonicalize_name(requirement.name)]}"
        for requirement in [*_install_requires(), *_extra("all")]
        if not requirement.specifier.contains(
            pins[canonicalize_name(requirement.name)], prereleases=True
        )
    ]
    assert refused == []


def test_one_of_the_locks_pins_whatever_this_python_needs() -> None:
    """Followed through the installed metadata, since what is needed differs by Python and version.

    Which of the two locks depends on the environment: `tox -e min` is installed by the lowest one.
    """
    needed = _needed_here()
    unpinned = {lock: sorted(needed - set(_pins(lock))) for lock in (LOCK, LOWEST)}
    assert [] in unpinned.values(), unpinned


def _needed_here() -> set[str]:
    """Canonical names of all that the product and its tests need, directly or not."""
    followed: set[tuple[str, str]] = set()
    waiting = [*_install_requires(), *_extra("test")]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {e for n, e in followed if n == name}:
            followed.add((name, extra))
            inner = map(Requirement, requires(name) or [])
            waiting += [r for r in inner if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in followed}
