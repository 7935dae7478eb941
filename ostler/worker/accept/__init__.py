"""From an accepted socket to a connection: PROXY header, then TLS, then the protocol."""
