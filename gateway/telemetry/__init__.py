"""What can be seen of the gateway: metrics, traces, logs. The names are contract (docs/METRICS.md, docs/TRACES.md).

`metrics`, `tracing` and `logging` have a package each, which says what is where; `observer` is what the bridge tells of
its messages to. The packages import nothing themselves: prometheus_client must find its folder when it is imported, and
OpenTelemetry's SDK is imported only where spans are recorded.
"""
