"""Imports what an import string names, and says in one line what failed."""

from __future__ import annotations

import importlib
import os
import traceback
from types import TracebackType
from typing import Any

from ostler.errors import StartupError

# Where ostler's own modules lie: their frames are left out of an application's traceback.
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def import_from_string(text: str) -> Any:
    """Return the object that `module:attribute` names; the attribute may be dotted.

    Raises:
        StartupError: there is no such module or attribute.
    """
    module_name, _, attributes = text.partition(":")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # A module that the application itself imports is the application's error, with its traceback.
        missing = exc.name
        if missing is None or not (module_name == missing or module_name.startswith(f"{missing}.")):
            raise
        raise StartupError(
            f'Could not import module "{module_name}": there is no such module in the working directory, '
            "--app-dir or the environment"
        ) from None
    try:
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AttributeError:
        raise StartupError(f'Attribute "{attributes}" not found in module "{module_name}"') from None
    return found


def own_traceback(exc: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins in the application's code, the importing left out."""
    step = exc.__traceback__
    while step is not None and _is_ours(step.tb_frame.f_code.co_filename):
        step = step.tb_next
    return step or exc.__traceback__


def one_line(exc: BaseException) -> str:
    """Return an exception as one line: type, message, and the file and line where it arose."""
    first = traceback.format_exception_only(type(exc), exc)
    # A syntax error's message comes after the lines that show its place; others may span several lines.
    text = " ".join((first[-1] if isinstance(exc, SyntaxError) else "".join(first)).split())
    frames = traceback.extract_tb(own_traceback(exc))
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{text} ({exc.filename}, line {exc.lineno})"
    # A failing import inside importlib says nothing; the last line of the application's code does.
    for frame in reversed(frames):
        if not frame.filename.startswith("<frozen "):
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text


def _is_ours(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", _PACKAGE)) or filename == importlib.__file__
