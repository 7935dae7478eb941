"""--reload for the arbiter: turns changes of files into reloads, at most one per `reload_delay` seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ostler.supervisor.event_loop import EventLoop, Timer
from ostler.supervisor.reload.file_watcher import FileWatcher
from ostler.supervisor.reload.terminal import Terminal


class Reloader:
    """Asks for a reload at the first change; changes within `delay` seconds after it become one more reload.

    Args:
        watcher: reports changed files.
        delay: the setting `reload_delay`, in seconds.
        directory: the log names files relative to it.

    Attributes:
        method: how files are watched, for the log.
    """

    def __init__(self, watcher: FileWatcher, *, delay: float, directory: str) -> None:
        self.terminal = Terminal()
        self.method = watcher.method
        self._watcher = watcher
        self._delay = delay
        self._directory = Path(directory)
        self._loop: EventLoop | None = None
        self._reload: Callable[[str, bool], None] = lambda why, settings: None
        self._absorbs: Callable[[], bool] = lambda: False
        self._pending: set[Path] = set()
        self._timer: Timer | None = None

    def start(
        self,
        loop: EventLoop,
        reload: Callable[[str, bool], None],
        absorbs: Callable[[], bool],
    ) -> None:
        """Watch from now on.

        Args:
            loop: the arbiter's event loop.
            reload: called with the text for the log, and with whether files of settings have changed.
            absorbs: returns whether a change of the code needs no reload, as no worker has read any code yet.
        """
        self._loop, self._reload, self._absorbs = loop, reload, absorbs
        self._watcher.start(loop, self._changed)

    def stop(self) -> None:
        """Watch no more, and restore the terminal."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._watcher.stop()
        self.terminal.restore()

    def _changed(self, paths: Sequence[Path]) -> None:
        if self._are_settings(paths) or not self._absorbs():
            self._pending.update(paths)
        if self._timer is None:
            self._reload_pending()

    def _reload_pending(self) -> None:
        self._timer = None
        if not self._pending or self._loop is None:
            return
        paths, self._pending = sorted(self._pending), set()
        self._timer = self._loop.call_later(self._delay, self._reload_pending)
        names = ", ".join(f"'{self._name(path)}'" for path in paths)
        self._reload(f"{self.method} detected changes in {names}. Reloading...", self._are_settings(paths))

    def _are_settings(self, paths: Sequence[Path]) -> bool:
        return not set(paths).isdisjoint(self._watcher.watch.files)

    def _name(self, path: Path) -> Path:
        return path.relative_to(self._directory) if self._directory in path.parents else path
