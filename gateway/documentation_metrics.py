"""METRICS.md: every metric with its labels, what it means and when to worry, from the declarations."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.telemetry.metrics import declarations as metrics
from gateway.telemetry.metrics.families import Family, Label, Section


def render(generated: str) -> str:
    """The document; ``generated`` is the line that says where it comes from."""
    return "\n".join(
        (
            "# Metrics",
            "",
            generated,
            "",
            *_INTRODUCTION,
            *(line for section in metrics.SECTIONS for line in _section(section)),
            "## Labels",
            "",
            "Every value ever seen is a series for as long as an instance lives, so none of these can be made up by a",
            "caller: what is not known is `other`, `unknown` or `none`.",
            "",
            "| Label | In | Holds |",
            "|---|---|---|",
            *_labels(),
            "",
        )
    )


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {section.title}", "")
    yield "| Metric | Type | Labels | Meaning | When to worry |"
    yield "|---|---|---|---|---|"
    for family in section.families:
        labels = ", ".join(f"`{label.name}`" for label in family.labels)
        cells = (
            f"`{family.name}`",
            family.kind,
            labels,
            _cell(family.meaning),
            _cell(family.worry),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""


def _labels() -> Iterator[str]:
    users: dict[Label, list[Family]] = {}
    for family in metrics.families():
        for label in family.labels:
            users.setdefault(label, []).append(family)
    for label, families in users.items():
        values = ", ".join(f"`{value}`" for value in label.values)
        holds = _cell(" ".join(filter(None, (f"{values}." if values else "", label.meaning))))
        yield f"| `{label.name}` | {'<br>'.join(f'`{f.name}`' for f in families)} | {holds} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


_INTRODUCTION = (
    "`GET /metrics` on `GATEWAY_BIND`, or on `METRICS_BIND` alone if that is set, without credentials. OpenMetrics 1.0",
    "or the Prometheus text format, whichever `Accept` prefers; compressed if `Accept-Encoding` takes gzip. One scrape",
    "covers all workers of an instance, whichever of them answers.",
    "",
    "- Counters and histograms are exact sums over all workers that the instance has had, while workers are replaced",
    "  or killed too. They begin at 0 with the instance.",
    "- Gauges cover the workers that are alive: sums (requests, memory), or the last value told (streams, consumers).",
    "- Counters whose labels are known beforehand are there from the start, at 0, so that an alert on their increase",
    "  sees the first one.",
    "- Names end in their unit: `_seconds`, `_bytes`, `_total` for counts.",
    "- Each worker keeps its numbers in files of about a megabyte in `PROMETHEUS_MULTIPROC_DIR`; memory-backed is",
    "  best. If they cannot be written, the worker serves all the same and its log says so.",
    "",
)
