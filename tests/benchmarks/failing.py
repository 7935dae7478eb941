"""An application that fails."""

from typing import NoReturn


async def app(scope: object, receive: object, send: object) -> NoReturn:
    """Raise."""
    raise RuntimeError("this application fails")
