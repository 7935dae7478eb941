"""One process that serves: an event loop, the application, and its connections."""
