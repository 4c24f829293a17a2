"""Traces: OpenTelemetry, one tracer a process.

=================== ========================================================================================
`settings`          the ``OTEL_*`` variables, declared: `TracingSettings`
`tracer`            the tracer and its trace ids: `Tracing`, `current_trace_id`
`http_spans`        the server span of a request
`nats_spans`        the spans of messages, and trace context on the wire: `NatsSpans`
`discretion`        what of a span may leave the process: `Discreet`
`recording`         the SDK; imported only where spans are recorded
`otlp`              OTLP: the exporter, and the receiver that smoke checks and tests bring with them
=================== ========================================================================================
"""
