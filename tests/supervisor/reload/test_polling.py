"""--reload without watchfiles: changes are found by the times and sizes of files."""

from __future__ import annotations

import importlib.util
import os
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.reload import file_watcher
from ostler.supervisor.reload.file_watcher import FileWatcher, Watch
from ostler.supervisor.reload.polling import Poller, poll


def poller(directory: Path, *, recursive: bool = True) -> Poller:
    return Poller([directory], Watch((directory,)).counts, recursive=recursive)


def found(poller: Poller, directory: Path) -> list[str]:
    return sorted(os.path.relpath(path, directory) for path in poller.look())


def age(directory: Path) -> None:
    """Let nothing in the directory have changed lately: what is known of it is believed then."""
    then = time.time() - 60
    for path in [directory, *directory.rglob("*")]:
        os.utime(path, (then, then))


@pytest.mark.parametrize("aged", [False, True])
def test_files_that_are_made_changed_replaced_and_deleted_are_found(tmp_path: Path, aged: bool) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("same.py", "written.py", "sub/deleted.py", "sub/replaced.py", "notes.txt"):
        (tmp_path / name).write_text("1")
    if aged:
        age(tmp_path)
    files = poller(tmp_path)
    assert found(files, tmp_path) == []

    (tmp_path / "written.py").write_text("12")
    (tmp_path / "notes.txt").write_text("12")
    (tmp_path / "sub/deleted.py").unlink()
    (tmp_path / "new.py").write_text("2")
    (tmp_path / "new.py").replace(tmp_path / "sub/replaced.py")
    (tmp_path / "deeper/still").mkdir(parents=True)
    (tmp_path / "deeper/still/made.py").touch()
    assert found(files, tmp_path) == [
        "deeper/still/made.py",
        "sub/deleted.py",
        "sub/replaced.py",
        "written.py",
    ]
    assert found(files, tmp_path) == []


def test_a_directory_that_goes_and_comes_back_is_looked_at_again(tmp_path: Path) -> None:
    root = tmp_path / "code"
    root.mkdir()
    (root / "a.py").write_text("1")
    files = poller(root)
    root.rename(tmp_path / "away")
    assert found(files, root) == ["a.py"]
    (tmp_path / "away").rename(root)
    assert found(files, root) == ["a.py"]
    assert found(files, root) == []


def test_files_of_settings_are_found_in_a_directory_that_is_not_searched(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    watch = Watch((), files=(tmp_path / "ostler.toml",))
    files = Poller([tmp_path], watch.counts, recursive=False)
    for name in ("ostler.toml", "other.toml", "sub/ostler.toml"):
        (tmp_path / name).touch()
    assert found(files, tmp_path) == ["ostler.toml"]


def test_a_link_that_leads_round_in_a_circle_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "round").symlink_to(tmp_path)
    files = poller(tmp_path)
    (tmp_path / "a.py").touch()
    assert found(files, tmp_path) == ["a.py"]


def test_polling_ends_when_it_is_told_to(tmp_path: Path) -> None:
    stop = threading.Event()
    changes = poll(tmp_path, counts=Watch((tmp_path,)).counts, stop_event=stop, recursive=True)
    assert next(changes) == set()
    (tmp_path / "a.py").touch()
    assert next(changes) == {(None, str(tmp_path / "a.py"))}
    stop.set()
    assert list(changes) == []


def test_without_watchfiles_the_watcher_polls_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(file_watcher, "find_spec", lambda name: None)
    loop, reported = EventLoop(), list[Path]()

    def changed(paths: list[Path]) -> None:
        reported.extend(paths)
        loop.stop()

    def save(times: int) -> None:
        (tmp_path / "a.py").write_text("#" * times)
        loop.call_later(0.1, partial(save, times + 1))  # the first may come too early

    watcher = FileWatcher(Watch((tmp_path,)))
    assert watcher.method == "StatReload"
    watcher.start(loop, changed)
    save(1)
    loop.run_forever()
    watcher.stop()
    loop.close()
    assert reported == [tmp_path / "a.py"]
    assert "watchfiles is not installed: looking for changes four times a second" in caplog.text


def test_watchfiles_is_used_where_it_is_installed(tmp_path: Path) -> None:
    installed = importlib.util.find_spec("watchfiles") is not None
    assert FileWatcher(Watch((tmp_path,))).method == ("WatchFiles" if installed else "StatReload")
