"""CI calls only what exists: Jenkinsfile, `.ci/run`, tox.ini and Makefile name the same things."""

import configparser
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
CALLERS = ("Jenkinsfile", ".ci/run")


def _make_targets() -> set[str]:
    declared = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert declared is not None
    return set(declared[1].split())


def _tox() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    return parser


def _tox_environments() -> set[str]:
    """Those with a section, and the Pythons of the list: tox makes up any other name without a word."""
    tox = _tox()
    sections = {name.removeprefix("testenv:") for name in tox.sections() if ":" in name}
    return sections | {
        env for env in tox["tox"]["env_list"].split() if re.fullmatch(r"py3\d+", env)
    }


def _commands(caller: str) -> str:
    lines = (ROOT / caller).read_text().splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith(("//", "#")))


def _make_calls(text: str) -> set[str]:
    return set(re.findall(r"\bmake(?: --[a-z-]+)* ([a-z][a-z-]*)", text))


def _tox_calls(text: str) -> set[str]:
    named = re.findall(r"\btox run -e ([a-z0-9,]+)", text)
    axes = re.findall(r"name 'TOX_ENV'\s+values ([^\n]*)", text)
    loops = re.findall(r"\bfor env in ([a-z0-9 ]+);", text)
    return (
        {env for group in named for env in group.split(",")}
        | {env for axis in axes for env in re.findall(r"'([^']+)'", axis)}
        | {env for loop in loops for env in loop.split()}
    )


@pytest.mark.parametrize("caller", CALLERS)
def test_every_make_target_that_ci_calls_exists(caller: str) -> None:
    calls = _make_calls(_commands(caller))
    assert calls
    assert calls <= _make_targets()


@pytest.mark.parametrize("caller", CALLERS)
def test_every_tox_environment_that_ci_calls_exists(caller: str) -> None:
    calls = _tox_calls(_commands(caller))
    assert calls
    assert calls <= _tox_environments()


@pytest.mark.parametrize("caller", [*CALLERS, "tox.ini"])
def test_every_test_path_that_ci_names_exists(caller: str) -> None:
    named = re.findall(r"\btests/[\w/.-]*", _commands(caller).replace("{/}", "/"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_environment_of_the_tox_list_exists() -> None:
    assert set(_tox()["tox"]["env_list"].split()) <= _tox_environments()


def test_jenkins_and_the_script_run_the_same_on_every_change() -> None:
    """Nothing guards on one side alone; the whole suite is `make test` here and an environment of tox there."""
    on_every_change, _, _ = _commands("Jenkinsfile").partition("stage('Nightly')")
    of_jenkins, of_script = _make_calls(on_every_change), _make_calls(_commands(".ci/run"))
    assert of_script - of_jenkins == {"test"}
    assert of_jenkins - of_script == set()
    assert _tox_calls(on_every_change) >= _tox_calls(_commands(".ci/run")) | {"py311"}


def test_jenkins_runs_every_environment_of_the_tox_list_itself_or_by_make_lint() -> None:
    by_make_lint = {"lint", "types", "imports"}
    calls = _tox_calls(_commands("Jenkinsfile"))
    assert "lint" in _make_calls(_commands("Jenkinsfile"))
    assert calls | by_make_lint >= set(_tox()["tox"]["env_list"].split())


def test_make_lint_runs_what_the_tox_environments_lint_types_and_imports_run() -> None:
    tox = _tox()
    of_tox = [
        line.strip()
        for env in ("lint", "types", "imports")
        for line in tox[f"testenv:{env}"]["commands"].splitlines()
        if line.strip()
    ]
    rule = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None
    assert [line.strip().removeprefix("$(BIN)/") for line in rule[1].splitlines()] == of_tox


def test_every_declared_make_target_has_a_rule_and_a_line_in_the_help() -> None:
    help_text = _make("help")
    for target in _make_targets():
        assert re.search(rf"^  make {target} ", help_text, re.MULTILINE), target


def test_every_supported_python_has_a_tox_environment() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    versions = re.findall(r"Python :: (3)\.(\d+)", setup["metadata"]["classifiers"])
    assert {f"py{major}{minor}" for major, minor in versions} <= _tox_environments()


@pytest.mark.parametrize("script", [".ci/run"])
def test_a_script_is_executable_and_parses(script: str) -> None:
    path = ROOT / script
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True, timeout=30)


def _make(*arguments: str) -> str:
    """What make prints; `make test` itself may be the caller, so its flags are not inherited."""
    return subprocess.run(
        ["env", "-u", "MAKEFLAGS", "-u", "MAKELEVEL", "make", "--no-print-directory", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    ).stdout
