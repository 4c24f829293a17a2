"""What the delivered files say, parsed: environments, compose services, Kubernetes objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.settings import Settings
from tests.support.gateway_process import REPOSITORY

DEPLOY: Final = REPOSITORY / "deploy"
COMPOSE_FILE: Final = DEPLOY / "compose" / "compose.yaml"
DOCKERFILE: Final = DEPLOY / "container" / "Dockerfile"
NOT_OBJECTS: Final = frozenset({"kustomization.yaml", "prometheus-adapter.yaml"})
_OF_THE_IMAGE: Final = frozenset({"PATH", "PYTHONDONTWRITEBYTECODE"})
_PASSWORD: Final = re.compile(r"\$\{(\w+):\?[^}]*\}")
_ENV: Final = re.compile(r"^ENV (.*)$", re.MULTILINE)


def compose() -> dict[str, Any]:
    """The compose file, its anchors resolved, its variables not."""
    document: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return document


def compose_variables() -> set[str]:
    """The variables that the compose file takes from ``.env``."""
    return set(_PASSWORD.findall(COMPOSE_FILE.read_text()))


def service_environment(name: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service, with the values of ``.env``."""
    environment: dict[str, str] = compose()["services"][name].get("environment", {})
    return {
        key: _PASSWORD.sub(lambda found: variables[found[1]], value)
        for key, value in environment.items()
    }


PASSWORDS: Final = dict.fromkeys(compose_variables(), "secret")
"""An ``.env`` as a person would fill it in."""


def objects() -> dict[str, dict[str, Any]]:
    """The Kubernetes objects by kind; each kind is there once."""
    paths = [p for p in (DEPLOY / "kubernetes").glob("*.yaml") if p.name not in NOT_OBJECTS]
    found = [yaml.safe_load(path.read_text()) for path in sorted(paths)]
    by_kind = {document["kind"]: document for document in found}
    assert len(by_kind) == len(found)
    return by_kind


def container() -> dict[str, Any]:
    """The only container of the pods."""
    (only,) = objects()["Deployment"]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def image_environment() -> dict[str, str]:
    """What the last stage of the Dockerfile sets."""
    last_stage = DOCKERFILE.read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    pairs = " ".join(_ENV.findall(last_stage)).split()
    return dict(pair.split("=", 1) for pair in pairs)


def unit_settings() -> dict[str, str]:
    """The environment file of the systemd unit."""
    lines = (DEPLOY / "systemd" / "gateway.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def nginx() -> str:
    """All of the front's configuration that is in force, without comments."""
    folder = DEPLOY / "nginx"
    paths = [folder / "beamline-gateway.conf", *(folder / "beamline").glob("*.inc")]
    return re.sub(r"#.*", "", "\n".join(path.read_text() for path in paths))


def environments() -> dict[str, dict[str, str]]:
    """Every environment that a gateway is started with, by where it stands."""
    image = {k: v for k, v in image_environment().items() if k not in _OF_THE_IMAGE}
    return {
        "compose": image | service_environment("gateway-a", PASSWORDS),
        "compose operator": image | service_environment("operator", PASSWORDS),
        "kubernetes": image | objects()["ConfigMap"]["data"],
        "systemd": unit_settings(),
    }


def settings_of(where: str, folder: Path) -> Settings:
    """The settings that an environment gives; what it mounts from elsewhere is a file of ``folder`` here.

    Raises SettingsError as the gateway's start would.
    """
    a_file = folder / "mounted"
    a_file.touch()
    return Settings.from_environ(
        {
            name: str(a_file) if name.endswith("_FILE") else value
            for name, value in environments()[where].items()
        }
    )


def seconds(text: str) -> float:
    """``75s``, ``500ms`` → seconds."""
    found = re.fullmatch(r"(\d+)(ms|s|m)", text)
    assert found is not None, f"{text} is no time"
    return float(found[1]) * {"ms": 0.001, "s": 1, "m": 60}[found[2]]
