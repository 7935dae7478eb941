"""An application's exception as a traceback without ostler's frames, or as one line.

Relies on what Python calls the code of its import system: `<frozen importlib._bootstrap>` and the like, under
PyPy `<builtin>/frozen importlib._bootstrap_external` as well, and the file of the `importlib` package. Where
that changes, tracebacks begin with the frames of the import system and a line may name one of its files;
tests/worker/test_tracebacks.py then fails.
"""

from __future__ import annotations

import importlib
import os
import traceback
from types import TracebackType

_FROZEN = ("<frozen ", "<builtin>/frozen ")
"""What the file name of the interpreter's built-in modules begins with; an application has none of those."""
_IMPORT_SYSTEM = tuple(f"{frozen}importlib" for frozen in _FROZEN)

# The directory of ostler's own modules.
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def own_traceback(exc: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins in the application's code, or all of it if there is none."""
    step = exc.__traceback__
    while step is not None and _leads_to_application(step.tb_frame.f_code.co_filename):
        step = step.tb_next
    if step is None and isinstance(exc, SyntaxError):
        return None  # no code of the application has run: the error itself names the file and the line
    return step or exc.__traceback__


def one_line(exc: BaseException) -> str:
    """Return an exception as one line: type, message, and the file and line where it was raised."""
    first = traceback.format_exception_only(type(exc), exc)
    # A syntax error's message comes after the lines that show its place; others may span several lines.
    text = " ".join((first[-1] if isinstance(exc, SyntaxError) else "".join(first)).split())
    frames = traceback.extract_tb(own_traceback(exc))
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{text} ({exc.filename}, line {exc.lineno})"
    # A failing import ends in importlib's frames; the last line of the application's code says more.
    for frame in reversed(frames):
        if not frame.filename.startswith(_FROZEN):
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text


def _leads_to_application(filename: str) -> bool:
    """Whether a frame only leads to the application's code: it is ostler's or the import system's."""
    return filename.startswith((*_IMPORT_SYSTEM, _PACKAGE)) or filename == importlib.__file__
