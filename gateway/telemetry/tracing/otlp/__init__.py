"""OTLP: how spans leave (`exporter`, `encoder`), and a collector to send them to (`receiver`, `grpc_server`, `spans`)."""
