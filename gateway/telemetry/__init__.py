"""What can be seen of the gateway: metrics, traces, logs. The names are contract (docs/METRICS.md)."""
