"""Commands and requests in the documents exist, and each is carried out by a test or said to be an exception.

They are carried out by tests/e2e/test_documented_commands.py, …_operations.py and …_requests.py; this is what can be
told at once.
"""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import pytest

from gateway.cli import main
from gateway.operator import backup
from gateway.settings import Settings
from tests.support.access_routes import routes
from tests.support.deploy_files import DEPLOY, compose, container, objects
from tests.support.document_commands import (
    GATEWAY,
    Command,
    Request,
    commands_in_blocks,
    commands_in_sentences,
    options_of,
    parsed,
    requests,
)
from tests.support.document_exceptions import BLOCKS, COMMANDS, known_by
from tests.support.document_text import blocks, for_readers, name_of, prose, spans
from tests.support.gateway_process import REPOSITORY

ALL: Final = [*commands_in_sentences(), *commands_in_blocks()]
OURS: Final = [command for command in ALL if command.program == GATEWAY]
MAKE: Final = [command for command in ALL if command.program == "make"]
MODULES: Final = [command for command in ALL if command.program.endswith("python")]
LANGUAGES: Final = {"", "sh", "json", "python", "java", "promql", "traceql"}
TARGETS: Final = re.search(r"^\.PHONY: (.*)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
#: Documents that name options of a module apart from its command, and which; options of others' programs.
MODULE_OF: Final = {
    "docs/SIZING.md": "tests.bench.sizing",
    "docs/adr/0013-readiness-is-what-a-run-says.md": "tests.readiness",
}
FOREIGN_OPTIONS: Final = {"--max-age": "of `nats stream edit`, NATS' own client"}


@pytest.mark.parametrize("command", OURS, ids=str)
def test_a_command_and_its_options_exist(command: Command) -> None:
    try:
        parsed(command)
    except click.UsageError as error:
        pytest.fail(f"{command.document}: {command}: {error.format_message()}")


@pytest.mark.parametrize("command", MAKE, ids=str)
def test_a_make_target_exists_and_what_it_is_given_selects_something(command: Command) -> None:
    assert TARGETS is not None
    [target] = [word for word in command.arguments if re.fullmatch(r"[a-z-]+", word)]
    assert target in TARGETS[1].split()
    given = "".join(word.removeprefix("ARGS=") for word in command.arguments if "ARGS=" in word)
    if given and target == "test":
        assert selects_something(shlex.split(given)), command
    elif given:
        assert given in help_of(f"tests.{target}")


def selects_something(arguments: list[str]) -> bool:
    """``-k "keys or claims"``: each word is in the name of a test or its file. Else a path."""
    if arguments[0] != "-k":
        return (REPOSITORY / arguments[0]).exists()
    names = [path.stem for path in (REPOSITORY / "tests").rglob("test_*.py")]
    words = set(arguments[1].split()) - {"or", "and", "not"}
    return all(any(word in name for name in names) for word in words)


@pytest.mark.parametrize("command", MODULES, ids=str)
def test_a_module_that_is_run_has_the_options(command: Command) -> None:
    first, module, *options = command.arguments
    assert first == "-m"
    assert [option for option in options if option not in help_of(module)] == []


@functools.cache
def help_of(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout


def test_a_tox_environment_that_is_named_exists() -> None:
    tox = (REPOSITORY / "tox.ini").read_text()
    for document in for_readers():
        for name in re.findall(r"\btox (?:run )?-e (\w+)", document.read_text(encoding="utf-8")):
            assert re.search(rf"^(\[testenv:{name}\]|    {name})$", tox, re.MULTILINE), name


@pytest.mark.parametrize("document", for_readers(), ids=name_of)
def test_an_option_that_is_named_exists(document: Path) -> None:
    ours = set(options_of(main))
    for span in spans(document):
        option = re.match(r"--[a-z-]+", span)
        if option and option[0] not in ours | FOREIGN_OPTIONS.keys():
            module = MODULE_OF.get(name_of(document))
            assert module and option[0] in help_of(module), f"there is no {option[0]}"


ROUTES: Final = {(method, re.sub(r"<[^>]+>", "{}", rule)) for method, rule, _ in routes()}


@pytest.mark.parametrize("request_", requests(), ids=str)
def test_an_endpoint_that_is_named_exists(request_: Request) -> None:
    path = re.sub(r"\{\w+\}", "{}", request_.path.partition("?")[0])
    named = {path, re.sub(r"/operations/\w+", "/operations/{}", path)}
    assert {(request_.method, each) for each in named} & ROUTES, request_.document


# -- nothing is left out ----------------------------------------------------------------------------


@pytest.mark.parametrize("document", for_readers(), ids=name_of)
def test_a_block_says_what_it_is_and_none_hides_a_command(document: Path) -> None:
    programs = {command.program for command in ALL} | {"curl", "beamline-gateway"}
    for block in blocks(document):
        assert block.language in LANGUAGES, (
            f"{block}: a reader, and a test, must know what to do with it"
        )
        if block.language == "":
            first = {line.split()[0] for line in block.text.splitlines() if line.strip()}
            assert first & programs == set(), f"{block}: begin it with ```sh"
    assert not re.search(r"\n\n {4,}\S", prose(document)), (
        "a block by indentation says not what it is"
    )


@pytest.mark.parametrize("command", commands_in_sentences(), ids=str)
def test_a_command_in_a_sentence_is_carried_out_or_an_exception(command: Command) -> None:
    ours = command.program in (GATEWAY, "make", "tox") or command in MODULES
    assert ours or str(command) in COMMANDS, f"{command.document}: no test carries this out"


def test_no_exception_is_left_of_what_is_gone() -> None:
    known = {known_by(block) for document in for_readers() for block in blocks(document)}
    assert BLOCKS.keys() - known == set()
    assert COMMANDS.keys() - set(map(str, commands_in_sentences())) == set()


@pytest.mark.parametrize("told", sorted({*BLOCKS.values(), *COMMANDS.values()}))
def test_a_test_that_an_exception_names_exists(told: str) -> None:
    for path, test in re.findall(r"(tests/\S+\.py)(?:::(\w+))?", told):
        assert f"def {test}" in (REPOSITORY / path).read_text(encoding="utf-8")


# -- what is there, of commands of others -----------------------------------------------------------


def looked_up(program: str) -> list[str]:
    found = [text for text in COMMANDS if text.startswith(program)]
    assert found
    return found


def test_kubernetes_has_the_names() -> None:
    text = "\n".join(looked_up("kubectl"))
    kinds = objects()
    assert set(re.findall(r"-n (\S+)", text)) == {kinds["Namespace"]["metadata"]["name"]}
    assert re.findall(r"deployment/(\S+)", text) == [kinds["Deployment"]["metadata"]["name"]]
    assert re.findall(r"(\S+)=…", text) == [container()["name"]]
    assert (DEPLOY / "kubernetes" / "kustomization.yaml").exists()


def test_compose_has_the_services() -> None:
    text = "\n".join([*looked_up("up "), *looked_up("docker compose")])
    named = set(re.findall(r"--build (\S+)|exec (\S+)", text))
    assert {name for pair in named for name in pair if name} <= compose()["services"].keys()


def test_systemd_has_the_unit() -> None:
    [unit] = [text.split()[-1] for text in looked_up("journalctl")]
    assert (DEPLOY / "systemd" / f"{unit}.service").exists()


def test_nats_has_the_streams() -> None:
    streams = backup.stream_names(Settings.from_environ({"APIKEYS_SOURCE": "bucket"}))
    assert set(re.findall(r"BEAMLINE_\w+", " ".join(looked_up("nats ")))) <= set(streams)
