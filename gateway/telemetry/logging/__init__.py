"""Logs: structlog, one JSON object a line.

=================== ========================================================================================
`setup`             what is logged, and how: `configure`
`form`              how a line looks: `JsonLine`, `ReadableLine`
`redaction`         what no line, and no span, may hold: `Redactor`
`writer`            how lines leave the process without holding up a request: `LineHandler`
`correlation`       which request or message a line belongs to
`access_log`        the access line of a request
`otel_lines`        what OpenTelemetry complains about, once a minute
=================== ========================================================================================
"""
