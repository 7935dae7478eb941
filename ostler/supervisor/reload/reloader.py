"""--reload, as the arbiter sees it: a watcher whose changes become reloads, and the terminal to share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ostler.supervisor.event_loop import EventLoop, Timer
from ostler.supervisor.reload.file_watcher import Watcher
from ostler.supervisor.reload.terminal import Terminal


class Reloader:
    """Asks for a reload at the first change, and gathers what follows within `delay` seconds into one more.

    `directory` is what the log names files relative to.
    """

    def __init__(self, watcher: Watcher, *, delay: float, directory: str) -> None:
        self.terminal = Terminal()
        self._watcher = watcher
        self._delay = delay
        self._directory = Path(directory)
        self._loop: EventLoop | None = None
        self._reload: Callable[[str, bool], None] = lambda why, settings: None
        self._absorbs: Callable[[], bool] = lambda: False
        self._pending: set[Path] = set()
        self._pause: Timer | None = None

    def start(
        self,
        loop: EventLoop,
        reload: Callable[[str, bool], None],
        absorbs: Callable[[], bool],
    ) -> None:
        """Watch from now on, and call `reload(why, whether files of settings are among them)`.

        `absorbs` says whether a change of the code need not be told, as nobody has read any of it yet.
        """
        self._loop, self._reload, self._absorbs = loop, reload, absorbs
        self._watcher.start(loop, self._changed)

    def stop(self) -> None:
        """Ask for nothing more, and leave the terminal as it was found."""
        self._loop = None
        if self._pause is not None:
            self._pause.cancel()
        self._watcher.stop()
        self.terminal.restore()

    def _changed(self, paths: Sequence[Path]) -> None:
        if self._of_settings(paths) or not self._absorbs():
            self._pending.update(paths)
        if self._pause is None:
            self._ask()

    def _ask(self) -> None:
        self._pause = None
        if not self._pending or self._loop is None:
            return
        paths, self._pending = sorted(self._pending), set()
        self._pause = self._loop.call_later(self._delay, self._ask)
        names = ", ".join(f"'{self._name(path)}'" for path in paths)
        self._reload(f"WatchFiles detected changes in {names}. Reloading...", self._of_settings(paths))

    def _of_settings(self, paths: Sequence[Path]) -> bool:
        return not set(paths).isdisjoint(self._watcher.watch.files)

    def _name(self, path: Path) -> Path:
        return path.relative_to(self._directory) if self._directory in path.parents else path
