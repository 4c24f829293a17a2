"""OTLP: how spans leave (`exporter`, `encoder`); a collector to send them to (`receiver`, `grpc_server`, `spans`)."""
