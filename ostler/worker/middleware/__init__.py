"""What stands between the connection and the application: proxy headers, and adapters to ASGI 3."""
