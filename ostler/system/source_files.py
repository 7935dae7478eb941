"""Tells an application's source files from those of Python, of ostler and of installed packages. Pure.

The arbiter imports this module: pathlib would cost it 0.7 MB.
"""

from __future__ import annotations

import posixpath
import threading
from collections.abc import Sequence

_PYTHON = f"{posixpath.dirname(threading.__file__)}/"
_OSTLER = f"{posixpath.dirname(posixpath.dirname(__file__))}/"
_INSTALLED = frozenset({"site-packages", "dist-packages"})


def innermost(files: Sequence[str]) -> int | None:
    """Return the index of the innermost frame of the application, given the files of a stack's frames.

    Args:
        files: the files' names, the innermost frame first.

    Returns:
        If all of the application's code is installed: the index of the innermost frame of installed code.
        None if there are only frames of Python and of ostler.
    """
    installed = None
    for index, file in enumerate(files):
        if not _INSTALLED.isdisjoint(file.split("/")):
            if installed is None and not file.startswith(_OSTLER):
                installed = index
        elif not file.startswith(("<", _OSTLER, _PYTHON)):
            return index
    return installed


def shown(file: str, directory: str) -> str:
    """Return the name of a file for the log: relative to `directory` if it lies below it."""
    inside = f"{directory.rstrip('/')}/"
    return file[len(inside) :] if file.startswith(inside) else file


def module(file: str) -> str:
    """Return the name of the module in a file of Python or of an installed package, as far as it tells."""
    parts = posixpath.splitext(file)[0].split("/")
    roots = [index for index, part in enumerate(parts) if part in _INSTALLED]
    python = _PYTHON.count("/") if file.startswith(_PYTHON) else 0
    inside = parts[roots[-1] + 1 :] if roots else parts[python:] if python else parts[-1:]
    names = inside[:-1] if len(inside) > 1 and inside[-1] == "__init__" else inside
    return ".".join(names)
