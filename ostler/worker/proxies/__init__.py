"""What proxies say of a client: X-Forwarded-*, Forwarded and the PROXY protocol, and which are trusted."""
