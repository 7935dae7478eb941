"""Never old bytecode under --reload: a source that was saved just now is compiled, and not cached.

Python takes cached bytecode for fresh when the source's length and its time in whole seconds are those that
it was compiled from (PEP 552). Two saves of one length within a second look alike to it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from importlib import machinery

_RACY = 2.0
"""Seconds for which a file may still be saved in the second that it bears, a clock's rounding included."""


class CarefulLoader(machinery.SourceFileLoader):
    """Loads sources as always, but neither reads nor writes bytecode for one that is this young."""

    def path_stats(self, path: str) -> Mapping[str, int]:
        """Return what bytecode is compared with.

        Raises:
            OSError: it must not be compared; the import does without (`importlib.abc.SourceLoader`).
        """
        if time.time() - os.stat(path).st_mtime < _RACY:
            raise OSError(f"{path} has just been saved")
        return super().path_stats(path)


def install() -> None:
    """Import every source in this process from now on with `CarefulLoader`."""
    hook = machinery.FileFinder.path_hook(
        (machinery.ExtensionFileLoader, machinery.EXTENSION_SUFFIXES),
        (CarefulLoader, machinery.SOURCE_SUFFIXES),
        (machinery.SourcelessFileLoader, machinery.BYTECODE_SUFFIXES),
    )
    sys.path_hooks.insert(0, hook)
    sys.path_importer_cache.clear()
