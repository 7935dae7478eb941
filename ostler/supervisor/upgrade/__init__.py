"""Replacing the arbiter itself by a new one (SIGUSR2), its sockets kept."""
