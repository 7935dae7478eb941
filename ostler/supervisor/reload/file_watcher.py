"""Which files count for --reload, and the threads that watch them (watchfiles).

`Watch` says what is watched and what counts; `Watcher` tells the arbiter's loop what has changed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from ostler.errors import SettingsError
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.supervisor.event_loop import EventLoop

logger = logging.getLogger("ostler.error")

Inodes: TypeAlias = dict[Path, "tuple[int, int] | None"]
Changes: TypeAlias = "Generator[set[tuple[Any, str]], None, None]"

INCLUDES = ("*.py",)
EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")

_QUIET = 20
"""Milliseconds without a change that end a burst: an editor's save is several changes."""
_BURST = 400
"""Milliseconds after which a burst that does not end is told all the same."""
_GLANCE = 1000
"""Milliseconds between two looks at whether the directories are still the same ones."""


@record
class Watch:
    """What is watched, and which of the files in there count."""

    directories: tuple[Path, ...]
    includes: tuple[str, ...] = INCLUDES
    excludes: tuple[str, ...] = EXCLUDES
    excluded: tuple[Path, ...] = ()
    """Directories in which nothing counts."""
    files: tuple[Path, ...] = ()
    """Files that count wherever they are: those of the settings."""

    @classmethod
    def of(cls, settings: Settings, directory: str, files: Iterable[str] = ()) -> Watch:
        """Return what the settings ask for; relative paths are relative to `directory`.

        Raises:
            SettingsError: a directory to watch is none.
        """
        here = Path(directory)
        asked = []
        for name in settings.reload_dir:
            if not (here / name).is_dir():
                raise SettingsError(f"reload_dir is {name!r}: there is no such directory to watch")
            asked.append(here / name)
        asked += _directories(here, settings.reload_include)
        excluded = _directories(here, settings.reload_exclude)
        kept = [d for d in asked if not any(d == e or e in d.parents for e in excluded)]
        includes, excludes = settings.reload_include, settings.reload_exclude
        return cls(
            directories=_outermost(kept or [here]),
            includes=tuple(x for x in (*INCLUDES, *includes) if x not in excludes),
            excludes=tuple(x for x in (*EXCLUDES, *excludes) if x not in includes),
            excluded=tuple(excluded),
            files=tuple(_absolute(here / file) for file in files),
        )

    def counts(self, path: Path) -> bool:
        """Whether a change of this file makes a reload."""
        if path in self.files:
            return True
        root = next((root for root in self.directories if root in path.parents), None)
        if root is None:
            return False
        if not any(path.match(pattern) for pattern in self.includes):
            return False
        if any(path.name == PurePath(pattern).name for pattern in self.includes):
            return True  # asked for by its very name
        if any(directory in path.parents for directory in self.excluded):
            return False
        # A directory that is excluded, such as .venv, excludes what is in it.
        inside = path.relative_to(root)
        parts = [inside, *inside.parents][:-1]
        return not any((root / part).match(pattern) for part in parts for pattern in self.excludes)


def _directories(here: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the directories among what the patterns name or match."""
    found = []
    for pattern in patterns:
        if pattern in (".*", "*"):
            continue  # for files: every hidden directory, or every one, is hardly meant
        if (here / pattern).is_dir():
            found.append(_absolute(here / pattern))
        elif not PurePath(pattern).is_absolute() and ".." not in PurePath(pattern).parts:
            found += [_absolute(match) for match in here.glob(pattern) if match.is_dir()]
    return found


def _outermost(directories: Sequence[Path]) -> tuple[Path, ...]:
    resolved = sorted({_absolute(directory) for directory in directories})
    return tuple(d for d in resolved if not any(other in d.parents for other in resolved))


def _absolute(path: Path) -> Path:
    # Not resolve(): changes are told by the path that is watched, links kept.
    return Path(os.path.abspath(path))


class Watcher:
    """Watches in threads, as watchfiles blocks; what counts is told in the loop's own thread.

    `start` it once, and `stop` it before the loop is closed.
    """

    def __init__(self, watch: Watch, function: Callable[..., Changes] | None = None) -> None:
        self.watch = watch
        self._watch = function or _watchfiles
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._loop: EventLoop | None = None
        self._changed: Callable[[list[Path]], None] | None = None

    def start(self, loop: EventLoop, changed: Callable[[list[Path]], None]) -> None:
        """Call `changed` with the files that count whenever some of them have changed."""
        self._loop, self._changed = loop, changed
        roots = self.watch.directories
        logger.info("Will watch for changes in these directories: %s", [str(root) for root in roots])
        self._begin(roots, recursive=True)
        outside = {file.parent for file in self.watch.files if not _inside(file, roots)}
        if outside:
            self._begin(sorted(outside), recursive=False)

    def stop(self) -> None:
        """Watch no more."""
        self._loop = None
        self._stop.set()
        for thread in self._threads:
            thread.join(1.0)

    def _begin(self, paths: Sequence[Path], *, recursive: bool) -> None:
        thread = threading.Thread(target=self._run, args=(paths, recursive), name="ostler-watch", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, paths: Sequence[Path], recursive: bool) -> None:
        polling: bool | None = None  # watchfiles looks at WATCHFILES_FORCE_POLLING
        before = _inodes(paths)
        while not self._stop.is_set():
            try:
                now = self._until_replaced(paths, recursive, polling, before)
            except Exception as exc:  # noqa: BLE001 - whatever the kernel refuses: inotify's limits, most often
                if polling:
                    logger.error("Changes are not noticed any more: %s", exc)
                    return
                logger.warning("Watching by polling, which is slower: the kernel refuses to notify (%s)", exc)
                polling = True
                continue
            for path, gone in now.items():
                if gone is None and before[path] is not None:
                    logger.warning("%s is gone: watched again once it is back", path)
            back = {path for path, inode in now.items() if inode not in (None, before[path])}
            before = now
            self._tell(back)

    def _until_replaced(
        self, paths: Sequence[Path], recursive: bool, polling: bool | None, before: Inodes
    ) -> Inodes:
        """Watch until it is over, or a path is another directory: paths are not what the kernel watches."""
        changes = self._watch(
            *paths,
            watch_filter=None,
            debounce=_BURST,
            step=_QUIET,
            rust_timeout=_GLANCE,
            yield_on_timeout=True,
            stop_event=self._stop,
            recursive=recursive,
            force_polling=polling,
            ignore_permission_denied=True,
        )
        with contextlib.closing(changes):
            for burst in changes:
                self._tell({path for _, name in burst if self.watch.counts(path := Path(name))})
                now = _inodes(paths)
                if now != before:
                    return now
        return before

    def _tell(self, paths: set[Path]) -> None:
        loop, changed = self._loop, self._changed
        if paths and loop is not None and changed is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: ostler ends
                loop.call_soon_threadsafe(changed, sorted(paths))


def _inside(path: Path, directories: Iterable[Path]) -> bool:
    return any(directory in path.parents for directory in directories)


def _inodes(paths: Iterable[Path]) -> Inodes:
    found: Inodes = {}
    for path in paths:
        try:
            status = path.stat()
            found[path] = (status.st_dev, status.st_ino)
        except OSError:
            found[path] = None
    return found


def _watchfiles(*paths: Path, **options: Any) -> Changes:
    from watchfiles import watch  # with --reload only: the arbiter stays small

    return watch(*paths, **options)
