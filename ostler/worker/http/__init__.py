"""HTTP/1.1: one connection class, one request/response cycle, two parsers behind one interface."""
