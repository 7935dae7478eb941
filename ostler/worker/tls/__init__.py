"""TLS in a worker: the current certificate, and what the application is told about it."""
