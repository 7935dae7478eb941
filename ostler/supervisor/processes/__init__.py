"""The worker processes: spawned, read, signalled, reaped."""
