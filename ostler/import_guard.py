"""Refuses `ostler.run()` in a module that is being imported to be served: its main guard is missing.

Workers import the application's module. If that is the script that calls `ostler.run()`, and the call is not
under `if __name__ == "__main__":`, it would come a second time: in every worker, which would start workers of
its own.

Relies on CPython in two places. `_inheriting`, an attribute of multiprocessing's current process, says that a
spawned process imports its parent's script; without it, such a call is not refused here, and multiprocessing
itself refuses to spawn. `sys._getframe` and the code name `<module>` find the file that the message names;
without the function the message says "the module", without the name it names the outermost file.
tests/live/test_from_code.py and tests/test_import_guard.py hold both.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from ostler.errors import StartupError

_importing: ContextVar[bool] = ContextVar("ostler_importing", default=False)
"""Of the context, not of the process: an application may start an ostler in a thread or process later."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Mark what runs within, in this thread, as the import of an application."""
    token = _importing.set(True)
    try:
        yield
    finally:
        _importing.reset(token)


def refuse(call: str) -> None:
    """Refuse `call`, such as `ostler.run()`, while a module is imported that is to be served.

    Raises:
        StartupError: the call stands in a module that is being imported; its file is named.
    """
    # A process that multiprocessing has spawned has the module loaded; no other process needs it.
    multiprocessing = sys.modules.get("multiprocessing.process")
    spawned = multiprocessing is not None and multiprocessing.current_process()
    if _importing.get() or getattr(spawned, "_inheriting", False):
        raise StartupError(
            f"{_importer()} calls {call} when it is imported: put it under if __name__ == '__main__':"
        )


def _importer() -> str:
    """Return the file name of the module that is being imported and makes the call."""
    if not hasattr(sys, "_getframe"):
        return "the module"
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return os.path.basename(frame.f_code.co_filename)
