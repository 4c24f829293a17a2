"""Execution: a run from its options to its exit code. Opens what the checks need, prints what they find."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import click

from gateway.smoke import report
from gateway.smoke.client import Client
from gateway.smoke.failures import Failed, Failure
from gateway.smoke.plan import Outcome, Result, exit_code, plan, run
from gateway.smoke.session import Session
from gateway.smoke.target import StackFailed, Starter, Target
from gateway.telemetry.tracing.otlp.receiver import OtlpReceiver
from gateway.telemetry.tracing.settings import Protocol

_ANYWHERE: Final = "127.0.0.1:0"
_SHOWN_LINES: Final = 40
_DEFAULT: Final = "http/protobuf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for. ``listen``: where to receive traces, None: nowhere; ``protocol``: how they must come,
    None: as the target's environment says."""

    ca_file: Path | None
    timeout_seconds: float
    wait_seconds: float
    cp_phase: str
    listen: str | None
    protocol: Protocol | None
    traces: bool
    round_trip: bool
    strict: bool
    as_json: bool


def execute(options: Options, target: Target | None, start: Starter) -> int:
    """Check ``target``, or without one a stack that is started for it; the exit code."""
    url = target.url if target else ""
    results: list[Result] = []
    with ExitStack() as opened:
        try:
            protocol = options.protocol or (_DEFAULT if target is None else _configured(target))
            receiver = _receiver(opened, options, protocol, required=target is None)
            if target is None:
                target = _started(opened, start, receiver, protocol)
            url = target.url
            _take(_results(options, target, receiver), results, options)
        except Failed as failed:
            _take([_failed(failed)], results, options)
        code = exit_code(results, strict=options.strict)
        if target is not None and target.log is not None and code:
            click.echo(_tail(target.log.read_text(errors="replace")), err=True)
    _print_end(url, results, code, options)
    return code


def _results(options: Options, target: Target, receiver: OtlpReceiver | None) -> Iterator[Result]:
    gateway = _client(target.url, options)
    session = Session(
        gateway=gateway,
        metrics=_client(target.metrics_url, options) if target.metrics_url else gateway,
        caller=target.caller,
        other_caller=target.other_caller,
        cp_phase=options.cp_phase,
        wait_seconds=options.wait_seconds,
        environ=target.environ,
        nats=bool(target.environ.get("NATS_URL")),
        receiver=receiver,
        round_trip=options.round_trip,
    )
    return run(plan(traces=options.traces, listening=receiver is not None), session)


def _client(url: str, options: Options) -> Client:
    return Client(url, timeout_seconds=options.timeout_seconds, ca_file=options.ca_file)


def _configured(target: Target) -> Protocol:
    """How a gateway with this environment sends traces; a wrong environment is the collector check's to tell."""
    named = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    given = next((value for name in named if (value := target.environ.get(name))), _DEFAULT)
    return "grpc" if given == "grpc" else _DEFAULT


def _receiver(
    opened: ExitStack, options: Options, protocol: Protocol, *, required: bool
) -> OtlpReceiver | None:
    listen = options.listen or (_ANYWHERE if required else None)
    if listen is None or not options.traces:
        return None
    try:
        return opened.enter_context(
            OtlpReceiver("grpc" if protocol == "grpc" else "http", bind=listen)
        )
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Failed(Failure.OTLP_ADDRESS, f"cannot listen on {listen}: {reason}") from None


def _started(
    opened: ExitStack, start: Starter, receiver: OtlpReceiver | None, protocol: Protocol
) -> Target:
    # What is started must be ended, also when this command is told to end.
    signal.signal(signal.SIGTERM, _end)
    try:
        return opened.enter_context(start(receiver.endpoint if receiver else "", protocol))
    except StackFailed as failed:
        click.echo(_tail(failed.output), err=True)
        raise Failed(Failure.DEVSTACK, f"the devstack does not start: {failed}") from None


def _end(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def _failed(failed: Failed) -> Result:
    """The result of what had to be there before any check."""
    return Result("start", Outcome.FAILED, str(failed), failed.failure, 0.0)


def _take(results: Iterable[Result], taken: list[Result], options: Options) -> None:
    for result in results:
        taken.append(result)
        if not options.as_json:
            click.echo(report.line(result))


def _print_end(url: str, results: list[Result], code: int, options: Options) -> None:
    if options.as_json:
        click.echo(report.document(url, results, code))
    else:
        click.echo(report.last_line(results, code), err=bool(code))


def _tail(output: str) -> str:
    return "\n".join(output.splitlines()[-_SHOWN_LINES:])
