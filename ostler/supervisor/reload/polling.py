"""Finds changed files by their times and sizes, for `--reload` where watchfiles is not installed."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

INTERVAL = 0.25
"""Seconds between two looks."""

_ROUNDS = 8
"""At most so many looks, 20 ms apart, for changes that follow one another: an editor's save is several."""
_STEP = 0.02
_COARSE = 2 * 10**9
"""Nanoseconds. A directory that is younger may change without a new time: file systems count coarsely."""

_Facts: TypeAlias = "tuple[int, int, int]"


class Poller:
    """The files that count below some directories, as they were at the last `look`.

    A look costs one stat(2) for each directory and each file that counts: a directory's list of names is read
    again only if the directory has changed, so what is installed in a .venv costs little.
    """

    def __init__(self, roots: Sequence[Path], counts: Callable[[Path], bool], *, recursive: bool) -> None:
        self._roots = [str(root) for root in roots]
        self._counts = counts
        self._recursive = recursive
        self._listings: dict[str, tuple[int, list[str], list[str]]] = {}
        self._facts: dict[str, _Facts] = {}
        self.look()

    def look(self) -> set[str]:
        """Return the files that were made, changed or deleted since the last look."""
        listings, self._listings = self._listings, {}
        before, self._facts = self._facts, dict(self._stats(listings))
        after = self._facts
        return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}

    def _stats(self, known: dict[str, tuple[int, list[str], list[str]]]) -> Iterator[tuple[str, _Facts]]:
        pending = self._roots[:]
        while pending:
            directory = pending.pop()
            with contextlib.suppress(OSError):  # it is gone, or not ours to read
                changed = os.stat(directory).st_mtime_ns
                listing = known.get(directory)
                if listing is None or listing[0] != changed:
                    listing = self._list(directory, changed)
                self._listings[directory] = listing
                pending += listing[1] if self._recursive else ()
                for file in listing[2]:
                    with contextlib.suppress(OSError):
                        status = os.stat(file)
                        yield file, (status.st_mtime_ns, status.st_size, status.st_ino)

    def _list(self, directory: str, changed: int) -> tuple[int, list[str], list[str]]:
        """Return the subdirectories of a directory, and its files that count; -1 if the list may be stale."""
        if time.time_ns() - changed < _COARSE:
            changed = -1
        directories, files = [], []
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):  # a link may lead round in a circle
                    directories.append(entry.path)
                elif self._counts(Path(entry.path)):
                    files.append(entry.path)
        return changed, directories, files


def poll(
    *paths: Path,
    counts: Callable[[Path], bool],
    stop_event: threading.Event,
    recursive: bool,
    **_: Any,
) -> Generator[set[tuple[Any, str]], None, None]:
    """Yield sets of changes, often empty ones, until `stop_event`: as watchfiles.watch does.

    Args:
        paths: directories to look at.
        counts: whether a file counts; others are not looked at.
        recursive: whether subdirectories count.
    """
    poller = Poller(paths, counts, recursive=recursive)
    while not stop_event.wait(INTERVAL):
        changed = more = poller.look()
        for _round in range(_ROUNDS):
            if not more or stop_event.wait(_STEP):
                break
            more = poller.look()
            changed = changed | more
        yield {(None, path) for path in changed}
