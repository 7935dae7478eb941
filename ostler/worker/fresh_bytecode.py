"""Under --reload: never imports old bytecode. A source that has just been saved is compiled, and not cached.

Python takes cached bytecode for current when the source's length and its time in whole seconds are those that
it was compiled from (PEP 552). So two saves of one length within a second look alike to it.

Relies on `SourceFileLoader.path_stats`: what it returns is compared with the bytecode, and where it raises
OSError, the import does without bytecode (both documented, importlib.abc.SourceLoader). Where that changes, a
reload may once run the old code after two quick saves, and tests/worker/test_fresh_bytecode.py fails.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from importlib import machinery

_RECENT = 2.0
"""Seconds for which a source may be saved again in the same second, a clock's rounding included."""


class CarefulLoader(machinery.SourceFileLoader):
    """Loads sources as usual, but neither reads nor writes bytecode for one that has just been saved."""

    def path_stats(self, path: str) -> Mapping[str, int]:
        """Return what bytecode is compared with.

        Raises:
            OSError: the source has just been saved; the import does without bytecode.
        """
        if time.time() - os.stat(path).st_mtime < _RECENT:
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
