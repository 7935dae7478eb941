"""Access log records whose message is already formatted, while their arguments stay readable.

Formatters may read an access record's arguments (uvicorn's does), and `%(message)s` must be the finished
line.

Relies on CPython's `logging`: `LogRecord.getMessage` returns `str(msg) % args`, and `str()` keeps an instance
of a subclass of `str` if its `__str__` returns one. `message_with_arguments` asks one record of the logger
whether that holds; a record factory of the user's may also break it. If it does not hold, records get the
finished line and no arguments: the line is right, and formatters that read the arguments miss them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

Arguments = tuple[Any, ...]
Finish = Callable[[str, Arguments], tuple[str, Arguments]]
"""From a finished line and the arguments, to the message and the arguments of a record."""


class FinishedMessage(str):
    """A message that stays as it is when arguments are formatted into it."""

    __slots__ = ()

    def __str__(self) -> str:
        return self

    def __mod__(self, _: object) -> str:
        return str.__str__(self)


def message_with_arguments(logger: logging.Logger) -> Finish:
    """Return what prepares a finished line and its arguments for the records of `logger`."""
    line = "%s{}"
    record = logger.makeRecord(
        logger.name, logging.INFO, __file__, 0, FinishedMessage(line), ("argument",), None
    )
    try:
        kept = record.getMessage() == line
    except (TypeError, ValueError, LookupError):  # what formatting raises
        kept = False
    if kept:
        return lambda text, args: (FinishedMessage(text), args)
    return lambda text, args: (text, ())
