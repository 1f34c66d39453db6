"""The process that serves: sockets, signals, workers, live configuration."""
