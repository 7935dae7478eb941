"""Applications of other interfaces (ASGI 2, WSGI) as ASGI 3, and the logging of ASGI messages."""
