"""Watches files for --reload, in threads: by watchfiles, or without it by polling.

`Watch` says which directories are watched and which of their files count; `FileWatcher` reports the changed
files to the arbiter's loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any, TypeAlias

from ostler.errors import SettingsError
from ostler.records import record
from ostler.settings.declarations import Settings
from ostler.supervisor.event_loop import EventLoop

logger = logging.getLogger("ostler.error.supervisor")

Inodes: TypeAlias = dict[Path, "tuple[int, int] | None"]
Changes: TypeAlias = "Generator[set[tuple[Any, str]], None, None]"

INCLUDES = ("*.py",)
EXCLUDES = (".*", ".py[cod]", ".sw.*", "~*")

INSTALLED = ("venv", "env", "node_modules", "site-packages", "dist-packages", "__pypackages__")
"""Names of directories that hold what others have written: it is installed, not edited."""
ENVIRONMENT_SIGNS = ("pyvenv.cfg", "conda-meta")
"""What a Python environment has in its directory, whatever its name: venv's (PEP 405), and conda's."""

# In milliseconds; the first two are watchfiles' own terms.
_STEP = 20
"""Changes are reported after this time without another one: an editor's save is several changes."""
_DEBOUNCE = 400
"""Changes are reported after this time even if they go on."""
_CHECK = 1000
"""Time between two checks whether the directories are still the same ones."""


@record
class Watch:
    """The directories that are watched, and which of their files count."""

    directories: tuple[Path, ...]
    includes: tuple[str, ...] = INCLUDES
    excludes: tuple[str, ...] = EXCLUDES
    excluded: tuple[Path, ...] = ()
    """Directories in which no file counts."""
    files: tuple[Path, ...] = ()
    """Files that count wherever they are: those of the settings."""
    asked: frozenset[Path] = frozenset()
    """Directories that the settings name, besides the working directory: they count wherever they are."""
    installed: frozenset[Path] = frozenset()
    """Those of them that are installed, or lie in what is: all that is installed in them counts, too."""
    named: frozenset[str] = frozenset()
    """Names of directories that an include mentions: they count, even if they are hidden or installed."""

    @classmethod
    def of(cls, settings: Settings, directory: str, files: Iterable[str] = ()) -> Watch:
        """Return the watch that the settings ask for.

        Args:
            settings: those of --reload.
            directory: relative paths are relative to it.
            files: files to watch besides, such as the configuration file.

        Raises:
            SettingsError: `reload_dir` names something that is no directory.
        """
        here = Path(directory)
        asked = []
        for name in settings.reload_dir:
            if not (here / name).is_dir():
                raise SettingsError(f"reload_dir is {name!r}: there is no such directory to watch")
            asked.append(here / name)
        included = _directories(here, settings.reload_include)
        if not asked and any(d.name.startswith(".") or is_installed(d) for d in included):
            asked.append(here)  # what is brought back is watched beside the rest, not instead of it
        asked += included
        excluded = _directories(here, settings.reload_exclude)
        kept = [d for d in map(_absolute, asked) if not any(d == e or e in d.parents for e in excluded)]
        includes, excludes = settings.reload_include, settings.reload_exclude
        named = [d for d in kept if d != _absolute(here)]
        return cls(
            directories=_outermost(kept or [here]),
            includes=tuple(x for x in (*INCLUDES, *includes) if x not in excludes),
            excludes=tuple(x for x in (*EXCLUDES, *excludes) if x not in includes),
            excluded=tuple(excluded),
            files=tuple(_absolute(here / file) for file in files),
            asked=frozenset(named),
            installed=frozenset(d for d in named if any(map(is_installed, _down_to(d, _absolute(here))))),
            named=frozenset(part for pattern in includes for part in PurePath(pattern).parts),
        )

    def counts(self, path: Path) -> bool:
        """Return whether a change of this file causes a reload."""
        if path in self.files:
            return True
        root = next((root for root in self.directories if root in path.parents), None)
        if root is None:
            return False
        if not any(path.match(pattern) for pattern in self.includes):
            return False
        if any(path.name == PurePath(pattern).name for pattern in self.includes):
            return True  # a pattern names this very file
        if any(directory in path.parents for directory in self.excluded):
            return False
        if any(path.match(pattern) for pattern in self.excludes):
            return False
        return not self._left_out(path, root)

    def _left_out(self, path: Path, root: Path) -> bool:
        """Whether a directory above this file, and below one that was asked for, is excluded or installed."""
        start = next((directory for directory in path.parents if directory in self.asked), root)
        with_installed = start in self.installed
        for directory in _down_to(path.parent, start):
            if directory.name in self.named:
                with_installed = with_installed or is_installed(directory)
                continue
            if any(directory.match(pattern) for pattern in self.excludes):
                return True
            if not with_installed and is_installed(directory):
                return True
        return False


def is_installed(directory: Path) -> bool:
    """Return whether a directory is a Python environment, or holds packages that were installed.

    A package of the application's own may have such a name: it has an `__init__.py`.
    """
    if directory.name in INSTALLED and not (directory / "__init__.py").exists():
        return True
    return any((directory / sign).exists() for sign in ENVIRONMENT_SIGNS)


def _down_to(directory: Path, top: Path) -> list[Path]:
    """Return the directories between `top`, without it, and `directory`, the outermost first."""
    if top not in directory.parents:
        return [] if directory == top else [directory]
    inner = [directory, *directory.parents]
    return inner[: inner.index(top)][::-1]


def _directories(here: Path, patterns: Iterable[str]) -> list[Path]:
    """Return the directories that the patterns name or match."""
    found = []
    for pattern in patterns:
        if pattern in (".*", "*"):
            continue  # meant for files: not every hidden directory, or every directory
        if (here / pattern).is_dir():
            found.append(_absolute(here / pattern))
        elif not PurePath(pattern).is_absolute() and ".." not in PurePath(pattern).parts:
            found += [_absolute(match) for match in here.glob(pattern) if match.is_dir()]
    return found


def _outermost(directories: Sequence[Path]) -> tuple[Path, ...]:
    resolved = sorted({_absolute(directory) for directory in directories})
    return tuple(d for d in resolved if not any(other in d.parents for other in resolved))


def _absolute(path: Path) -> Path:
    # Not resolve(): watchfiles reports paths as they are watched, links kept.
    return Path(os.path.abspath(path))


class FileWatcher:
    """Watches in threads, as watchfiles blocks, and reports files that count in the loop's own thread.

    `start` it once, and `stop` it before the loop is closed. `function` stands for watchfiles.watch, in
    tests.

    Attributes:
        method: how files are watched, in uvicorn's words: WatchFiles or StatReload.
    """

    def __init__(self, watch: Watch, function: Callable[..., Changes] | None = None) -> None:
        self.watch = watch
        polls = function is None and find_spec("watchfiles") is None
        self.method = "StatReload" if polls else "WatchFiles"
        self._function = function or (partial(_poll, counts=watch.counts) if polls else _watchfiles)
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._loop: EventLoop | None = None
        self._changed: Callable[[list[Path]], None] | None = None

    def start(self, loop: EventLoop, changed: Callable[[list[Path]], None]) -> None:
        """Call `changed`, in the loop's thread, with the files that count whenever some of them change."""
        self._loop, self._changed = loop, changed
        roots = self.watch.directories
        logger.info("Will watch for changes in these directories: %s", [str(root) for root in roots])
        if self.method == "StatReload":
            logger.warning("watchfiles is not installed: looking for changes four times a second")
        self._start_thread(roots, recursive=True)
        outside = {file.parent for file in self.watch.files if not _inside(file, roots)}
        if outside:
            self._start_thread(sorted(outside), recursive=False)

    def stop(self) -> None:
        """Watch no more, and wait a second for each thread to end."""
        self._loop = None
        self._stop.set()
        for thread in self._threads:
            thread.join(1.0)

    def _start_thread(self, paths: Sequence[Path], *, recursive: bool) -> None:
        thread = threading.Thread(target=self._run, args=(paths, recursive), name="ostler-watch", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self, paths: Sequence[Path], recursive: bool) -> None:
        polling: bool | None = None  # watchfiles looks at WATCHFILES_FORCE_POLLING
        before = _inodes(paths)
        while not self._stop.is_set():
            try:
                now = self._until_replaced(paths, recursive, polling, before)
            except Exception as exc:  # noqa: BLE001 - whatever the kernel refuses; most often a limit of inotify
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
            self._report(back)

    def _until_replaced(
        self, paths: Sequence[Path], recursive: bool, polling: bool | None, before: Inodes
    ) -> Inodes:
        """Watch until `stop`, or until a path names another directory: the kernel watches inodes."""
        changes = self._function(
            *paths,
            watch_filter=None,
            debounce=_DEBOUNCE,
            step=_STEP,
            rust_timeout=_CHECK,
            yield_on_timeout=True,
            stop_event=self._stop,
            recursive=recursive,
            force_polling=polling,
            ignore_permission_denied=True,
        )
        with contextlib.closing(changes):
            for batch in changes:
                self._report({path for _, name in batch if self.watch.counts(path := Path(name))})
                now = _inodes(paths)
                if now != before:
                    return now
        return before

    def _report(self, paths: set[Path]) -> None:
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


def _poll(*paths: Path, **options: Any) -> Changes:
    from ostler.supervisor.reload.polling import poll  # without watchfiles only

    return poll(*paths, **options)
