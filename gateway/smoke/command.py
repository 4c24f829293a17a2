"""``beamline-gateway smoke``: the options of the checks."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from gateway.smoke.client import Client
from gateway.smoke.target import Starter, Target

_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*:\s*([!-~](?:[ -~]*[!-~])?)\s*")
_KEY: Final = re.compile(r"[!-~]+")
_ADDRESS: Final = re.compile(r"[A-Za-z0-9_.-]+:\d{1,5}")
_DEFAULT_URL: Final = "http://127.0.0.1:8080"
_OF_A_RUNNING_ONE: Final = (
    "url", "metrics_url", "ca_file", "key", "header", "tenant_key", "tenant_header", "otlp_listen",
)  # fmt: skip
_PHASES: Final = (*(f"cp{n}" for n in range(9)), "unknown")


def smoke_command(start: Starter) -> click.Command:
    """The command; ``start`` is what ``--devstack`` starts."""

    @click.command()
    @click.option("--url", help=f"The gateway, one instance of it.  [default: {_DEFAULT_URL}]")
    @click.option("--metrics-url", help="Where its /metrics is, with METRICS_BIND.")
    @click.option(
        "--ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="CA of its certificate; the system's unless given.",
    )
    @click.option("--key", envvar="BEAMLINE_KEY", help="API key or JWT (better by BEAMLINE_KEY).")
    @click.option("--header", multiple=True, help="'Name: value' on every request; repeatable.")
    @click.option("--tenant-key", envvar="BEAMLINE_TENANT_KEY", help="Key of a second tenant.")
    @click.option(
        "--tenant-header", multiple=True, help="As --header: in its place for a second tenant."
    )
    @click.option(
        "--otlp-listen",
        metavar="HOST:PORT",
        help="Receive the gateway's traces here: the address in its OTEL_EXPORTER_OTLP_ENDPOINT.",
    )
    @click.option(
        "--otlp-protocol",
        type=click.Choice(["http/protobuf", "grpc"]),
        help="How they must come; unless given, as OTEL_EXPORTER_OTLP_PROTOCOL says here.",
    )
    @click.option("--without-traces", is_flag=True, help="Neither receive traces nor send one.")
    @click.option("--round-trip", is_flag=True, help="There are a Router and a worker: use them.")
    @click.option("--cp-phase", type=click.Choice(_PHASES), default="cp2", show_default=True)
    @click.option(
        "--timeout",
        type=click.FloatRange(0.1, 300),
        default=10.0,
        show_default=True,
        help="Seconds for each answer.",
    )
    @click.option(
        "--wait",
        type=click.FloatRange(0.1, 300),
        default=15.0,
        show_default=True,
        help="Seconds for what follows an answer: counting, sending spans.",
    )
    @click.option("--strict", is_flag=True, help="What cannot be checked is a failure, too.")
    @click.option("--devstack", is_flag=True, help="Start everything here, check it, end it.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object instead of lines.")
    @click.pass_context
    def smoke(context: click.Context, /, **options: Any) -> None:
        """Check a running gateway from outside: probes, metrics, traces, exactly-once.

        Sends usage events that cost nothing (provider "smoke") under the tenant of the credentials. Reads the usage
        stream if NATS_URL is set. Each failure has an exit code of its own (docs/SMOKE.md).
        """
        if options["devstack"]:
            _refuse_together(context, options)
        target = None if options["devstack"] else _target(options)
        listen = options["otlp_listen"]
        if listen is not None and not _ADDRESS.fullmatch(listen):
            raise click.BadParameter("expected host:port", param_hint="--otlp-listen")
        # Imported here: gRPC and the OpenTelemetry messages are slow, and no other command needs them.
        from gateway.smoke.execution import Options, execute

        asked = Options(
            ca_file=options["ca_file"],
            timeout_seconds=options["timeout"],
            wait_seconds=options["wait"],
            cp_phase=options["cp_phase"],
            listen=listen,
            protocol=options["otlp_protocol"],
            traces=not options["without_traces"],
            round_trip=options["round_trip"] or options["devstack"],
            strict=options["strict"],
            as_json=options["as_json"],
        )
        sys.exit(execute(asked, target, start))

    return smoke


def _refuse_together(context: click.Context, options: dict[str, Any]) -> None:
    for name in _OF_A_RUNNING_ONE:
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and options[name]:
            raise click.UsageError(
                f"--{name.replace('_', '-')} is of a gateway that runs, not of --devstack"
            )


def _target(options: dict[str, Any]) -> Target:
    url, metrics_url = options["url"] or _DEFAULT_URL, options["metrics_url"]
    _check_url(url, "--url", options["ca_file"])
    if metrics_url is not None:
        _check_url(metrics_url, "--metrics-url", options["ca_file"])
    caller = _credentials(options["key"], options["header"], "--key", "--header")
    other = _credentials(
        options["tenant_key"], options["tenant_header"], "--tenant-key", "--tenant-header"
    )
    return Target(
        url=url,
        metrics_url=metrics_url,
        caller=caller,
        other_caller={**caller, **other} if other else None,
        environ=dict(os.environ),
    )


def _check_url(url: str, option: str, ca_file: Path | None) -> None:
    """A wrong one is not repeated: it may hold a password."""
    try:
        Client(url, timeout_seconds=1.0, ca_file=ca_file)
    except OSError:
        raise click.BadParameter("expected certificates (PEM)", param_hint="--ca-file") from None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint=option) from None


def _credentials(
    key: str | None, headers: Iterable[str], key_option: str, header_option: str
) -> dict[str, str]:
    """The headers, names in lower case. What is wrong is not repeated: it may be a credential."""
    found = {}
    if key:
        if not _KEY.fullmatch(key):
            raise click.BadParameter(
                "expected printable ASCII without blanks", param_hint=key_option
            )
        found["authorization"] = f"Bearer {key}"
    for header in headers:
        if (match := _HEADER.fullmatch(header)) is None:
            raise click.BadParameter("expected 'Name: value'", param_hint=header_option)
        found[match[1].lower()] = match[2]
    return found
