"""The arbiter: it owns the listening sockets and looks after the workers."""
