"""The import law bites: each contract of pyproject.toml fails on a small tree that breaks it.

The trees have the modules that the contracts name and one forbidden import each; the contracts are
the real ones, read from pyproject.toml by lint-imports itself.
"""

import ast
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

SOUND_TREE = (
    "bridge/__init__.py",
    "bridge/loop.py",
    "gateway/__init__.py",
    "gateway/app.py",
    "gateway/blueprints/__init__.py",
    "gateway/blueprints/acks.py",
    "gateway/blueprints/routes.py",
    "gateway/cli.py",
    "gateway/context.py",
    "gateway/devstack/__init__.py",
    "gateway/devstack/stack.py",
    "gateway/operations/__init__.py",
    "gateway/operations/decide.py",
    "gateway/schemas/__init__.py",
    "gateway/schemas/decide.py",
)

# What the law allows, so that a contract which forbids everything is noticed too.
SOUND_IMPORTS = (
    ("bridge/loop.py", "import nats"),
    ("bridge/__init__.py", "import bridge.loop"),
    ("gateway/app.py", "import flask, gateway.blueprints.acks, gateway.blueprints.routes"),
    ("gateway/blueprints/routes.py", "import gateway.operations.decide"),
    ("gateway/operations/decide.py", "from bridge import Bus"),
    ("gateway/operations/decide.py", "from gateway.context import RequestContext"),
    ("gateway/schemas/decide.py", "import marshmallow"),
    ("gateway/cli.py", "from gateway.devstack import stack"),
    ("gateway/devstack/stack.py", "import bridge, gateway.context"),
)

VIOLATIONS = (
    ("bridge-knows-no-http", "bridge/loop.py", "import flask"),
    ("bridge-knows-no-http", "bridge/loop.py", "from werkzeug.exceptions import NotFound"),
    ("bridge-knows-no-http", "bridge/__init__.py", "import marshmallow"),
    ("bridge-knows-no-http", "bridge/loop.py", "from webargs import fields"),
    ("bridge-knows-no-http", "bridge/loop.py", "from gateway import context"),
    ("gateway-never-imports-nats", "gateway/app.py", "import nats"),
    ("gateway-never-imports-nats", "gateway/devstack/stack.py", "from nats.js import api"),
    ("bridge-public-names-only", "gateway/app.py", "from bridge.loop import Loop"),
    ("bridge-public-names-only", "gateway/operations/decide.py", "from bridge import loop"),
    ("operations-know-no-http", "gateway/operations/decide.py", "from flask import g"),
    ("operations-know-no-http", "gateway/operations/decide.py", "import gateway.blueprints.acks"),
    ("operations-know-no-http", "gateway/context.py", "import flask"),
    ("operations-know-no-nats", "gateway/operations/decide.py", "import nats.errors"),
    ("schemas-know-no-flask", "gateway/schemas/decide.py", "from flask import request"),
    ("schemas-know-no-flask", "gateway/schemas/decide.py", "import gateway.blueprints"),
    (
        "blueprints-are-independent",
        "gateway/blueprints/acks.py",
        "import gateway.blueprints.routes",
    ),
    ("blueprints-are-independent", "gateway/blueprints/body.py", "import gateway.blueprints.acks"),
    ("devstack-only-from-the-command", "gateway/app.py", "from gateway.devstack import stack"),
    ("devstack-only-from-the-command", "gateway/operations/decide.py", "import gateway.devstack"),
)


def _plant(tree: Path, files: Iterable[str], imports: Iterable[tuple[str, str]]) -> None:
    shutil.copy(ROOT / "pyproject.toml", tree)
    shared = _shared_by_blueprints()
    files = [*files, *(f"{name.replace('.', '/')}.py" for name in shared)]
    imports = [*imports, *(("gateway/blueprints/routes.py", f"import {name}") for name in shared)]
    for name in files:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    for name, statement in imports:
        with (tree / name).open("a") as module:
            module.write(f"{statement}\n")


def _lint(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT_IMPORTS, "--no-cache", *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _settings() -> list[dict[str, Any]]:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts: list[dict[str, Any]] = pyproject["tool"]["importlinter"]["contracts"]
    return contracts


def _contracts() -> dict[str, str]:
    return {contract["id"]: contract["name"] for contract in _settings()}


def _shared_by_blueprints() -> list[str]:
    """Modules of the blueprints that the contract lets each of them import."""
    (contract,) = (c for c in _settings() if c["id"] == "blueprints-are-independent")
    return [pair.split(" -> ")[1] for pair in contract["ignore_imports"]]


def _bridge_submodules() -> list[str]:
    modules = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "bridge").rglob("*.py"))
    names = (".".join(m.parts[:-1] if m.name == "__init__" else m.parts) for m in modules)
    return sorted(name for name in names if name != "bridge")


def test_a_sound_tree_keeps_every_contract(tmp_path: Path) -> None:
    _plant(tmp_path, SOUND_TREE, SOUND_IMPORTS)
    outcome = _lint(tmp_path)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert f"{len(_contracts())} kept, 0 broken" in outcome.stdout


@pytest.mark.parametrize(("contract", "module", "statement"), VIOLATIONS)
def test_a_forbidden_import_breaks_its_contract(
    tmp_path: Path, contract: str, module: str, statement: str
) -> None:
    _plant(tmp_path, SOUND_TREE, [*SOUND_IMPORTS, (module, statement)])
    outcome = _lint(tmp_path, "--contract", contract)
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert f"{_contracts()[contract]} BROKEN" in outcome.stdout


def test_every_contract_has_a_tree_that_breaks_it() -> None:
    assert {contract for contract, _, _ in VIOLATIONS} == set(_contracts())


def test_every_module_that_the_bridge_really_has_is_closed_to_the_gateway(tmp_path: Path) -> None:
    submodules = _bridge_submodules()
    assert submodules, "no modules found under bridge/"
    files = [f"{name.replace('.', '/')}.py" for name in submodules if name not in _packages()]
    files += [f"{name.replace('.', '/')}/__init__.py" for name in _packages()]
    imports = [("gateway/app.py", f"import {name}") for name in submodules]
    _plant(tmp_path, [*SOUND_TREE, *files], imports)

    outcome = _lint(tmp_path, "--contract", "bridge-public-names-only")

    named = {
        line.split(" -> ")[1].split()[0] for line in outcome.stdout.splitlines() if " -> " in line
    }
    assert named >= set(submodules), outcome.stdout + outcome.stderr


def _packages() -> set[str]:
    return {name for name in _bridge_submodules() if (ROOT / name.replace(".", "/")).is_dir()}


def test_no_view_awaits_anything() -> None:
    asynchronous = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in (ROOT / "gateway" / "blueprints").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, asynchronous)
    ]
    assert found == []
