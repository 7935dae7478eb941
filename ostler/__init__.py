"""A multi-process supervisor and ASGI server."""

from ostler.settings import Settings

__all__ = ["Settings", "__version__"]
__version__ = "0.1.0.dev0"
