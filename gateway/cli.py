"""The ``beamline-gateway`` command."""

from __future__ import annotations

import importlib
import json
import os
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import click

from gateway.operator import COMMANDS
from gateway.settings import Settings, SettingsError, variables
from gateway.smoke.command import smoke_command
from gateway.smoke.target import Target

OUT_OF_DATE = 1


class _Commands(click.Group):
    """Imports an operator's command when it is called for: all of them took longer than the rest of `serve`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """See `click.Group`."""
        return sorted({*super().list_commands(ctx), *COMMANDS})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """See `click.Group`."""
        if cmd_name in COMMANDS and cmd_name not in self.commands:
            module = importlib.import_module(f"gateway.operator.{COMMANDS[cmd_name]}")
            self.add_command(getattr(module, cmd_name))
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Commands)
@click.version_option(package_name="beamline-gateway")
def main() -> None:
    """HTTP gateway in front of NATS. Configured by the environment; see `settings`."""


@main.command()
def serve() -> None:
    """Run the gateway under gunicorn (GATEWAY_BIND, WEB_CONCURRENCY, GATEWAY_THREADS)."""
    _settings()
    # After SIGUSR2 gunicorn starts itself again by the path of its __main__, whose folder would come first on sys.path:
    # its own `http` would hide the library's. What is given as PYTHONPATH still counts.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Replaces this process: signals and the exit code are gunicorn's own.
    os.execv(
        sys.executable,
        [
            sys.executable,
            "-m",
            "gunicorn",
            "-c",
            "python:gateway.gunicorn_conf",
            "gateway.wsgi:app",
        ],
    )


@main.command()
@click.option("--bind", default=None, help="host:port to listen on (default: GATEWAY_BIND).")
def dev(bind: str | None) -> None:
    """Run everything on this machine: NATS, reference Router and worker, gateway with 2 workers."""
    from gateway.devstack.stack import run_dev

    sys.exit(run_dev(bind or os.environ.get("GATEWAY_BIND") or "127.0.0.1:8080"))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of a table.")
def settings(as_json: bool) -> None:
    """Print the effective settings; secrets are hidden."""
    effective = _settings()
    shown = {variable.name: variable.shown(effective) for variable in variables()}
    if as_json:
        click.echo(json.dumps(shown, indent=2))
        return
    width = max(map(len, shown))
    for variable in variables():
        mark = " " if shown[variable.name] == (variable.default or "") else "*"
        click.echo(f"{mark} {variable.name:<{width}}  {shown[variable.name]}")
    click.echo("\n* differs from the default")


@main.command(hidden=True)
@click.option("--check", is_flag=True, help="Write nothing; fail if a document is out of date.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default="docs",
    show_default=True,
)
def docs(check: bool, folder: Path) -> None:
    """Write the documents that are made from declarations."""
    from gateway import documentation

    stale = documentation.outdated(folder) if check else documentation.write(folder)
    for path in stale:
        click.echo(f"{path}: {'out of date; run `beamline-gateway docs`' if check else 'written'}")
    sys.exit(OUT_OF_DATE if check and stale else 0)


def _stack_for_smoke(otlp_endpoint: str, otlp_protocol: str) -> AbstractContextManager[Target]:
    from gateway.devstack.for_smoke import stack_for_smoke

    return stack_for_smoke(otlp_endpoint, otlp_protocol)


main.add_command(smoke_command(_stack_for_smoke))


def _settings() -> Settings:
    """The settings, or the end of the process with a line for each wrong variable."""
    try:
        return Settings.from_environ(os.environ)
    except SettingsError as error:
        from gateway.operator.bus import CONFIGURATION_ERROR

        for problem in error.problems:
            click.echo(f"{problem}", err=True)
        sys.exit(CONFIGURATION_ERROR)


if __name__ == "__main__":
    main()
