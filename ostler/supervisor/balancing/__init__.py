"""One listening queue per worker, and which of them get new connections."""
