"""Says where a thread is: in which line of the application, and in which call that this line makes."""

from __future__ import annotations

import linecache
import re
import sys
from types import FrameType

from ostler.system import source_files

_CALL = re.compile(r"([A-Za-z_][\w.]*)\s*\(")
_NO_CALLS = frozenset({"and", "assert", "await", "elif", "if", "in", "not", "or", "return", "while", "yield"})


def describe(thread: int, directory: str) -> str | None:
    """Return for example `main.py:4 app(), time.sleep`; None if the thread runs no code of the application.

    May block, as it reads source files.

    Args:
        thread: the thread's id (`threading.get_ident`).
        directory: files below it are named relative to it.
    """
    frames: list[FrameType] = []
    frame = sys._current_frames().get(thread)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    index = source_files.innermost([frame.f_code.co_filename for frame in frames])
    if index is None:
        return None
    frame = frames[index]
    file, line = frame.f_code.co_filename, frame.f_lineno
    place = f"{source_files.shown(file, directory)}:{line} {frame.f_code.co_name}()"
    called = _name(frames[index - 1]) if index else called_in(linecache.getline(file, line))
    return f"{place}, {called}" if called else place


def called_in(line: str) -> str | None:
    """Return the name of the function that a line of source calls; None if it calls none, or several."""
    names = [name for name in _CALL.findall(line.partition("#")[0]) if name not in _NO_CALLS]
    return (
        names[0]
        if len(names) == 1 and not line.lstrip().startswith(("def ", "async def ", "class "))
        else None
    )


def _name(frame: FrameType) -> str:
    module = frame.f_globals.get("__name__", "?")
    return f"{module}.{getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}"
