"""OTLP: how spans leave (`exporter`), and a collector to send them to (`receiver`, `grpc_server`, `spans`)."""
