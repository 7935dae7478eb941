"""Tells whether something has replaced methods of `logging.Logger`, as error trackers do to see every record.

Relies on `co_filename`: code of the logging module names the file of that module, and a replacement names
another file, even one that functools.wraps has given the original's names. Where a method has no code object
(an interpreter with logging in C), it counts as replaced: each access log line then takes the way of a
complete record, which is slower and right.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any


def is_original(method: Callable[..., Any]) -> bool:
    """Whether a method of a logging class is logging's own."""
    code = getattr(method, "__code__", None)
    return code is not None and code.co_filename == logging.addLevelName.__code__.co_filename
