"""WebSockets (RFC 6455): one connection class, one cycle, two libraries behind one interface."""
