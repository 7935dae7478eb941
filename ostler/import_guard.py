"""Tells a script that starts ostler when it is run from one that starts it again when it is imported.

Whoever serves imports the application's module. If that is the very script that called `ostler.run()`, and
without a guard, the call comes a second time: in every worker, which would start workers of its own.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar

from ostler.errors import StartupError

_importing: ContextVar[bool] = ContextVar("ostler_importing", default=False)
"""Of the context, not the process: an application may well start an ostler in a thread or process later."""


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """The application is imported, in this thread, for as long as this lasts."""
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
    # A process that multiprocessing has spawned imports the parent's script, too, before it does what it is
    # for: the attribute is what multiprocessing itself refuses to spawn by.
    # Such a process has it loaded; no other needs it.
    multiprocessing = sys.modules.get("multiprocessing.process")
    spawned = multiprocessing is not None and multiprocessing.current_process()
    if _importing.get() or getattr(spawned, "_inheriting", False):
        raise StartupError(
            f"{_importer()} calls {call} when it is imported: put it under if __name__ == '__main__':"
        )


def _importer() -> str:
    """The file of the module that is being imported, from whose top level we are called."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return os.path.basename(frame.f_code.co_filename)
