"""Which files count for --reload, and when their changes become reloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.errors import SettingsError
from ostler.settings.declarations import Settings
from ostler.supervisor.event_loop import EventLoop
from ostler.supervisor.reload.file_watcher import FileWatcher, Watch
from ostler.supervisor.reload.reloader import Reloader


def watch(directory: Path, **settings: tuple[str, ...]) -> Watch:
    return Watch.of(Settings(reload=True, **settings), str(directory), ("pyproject.toml", "/etc/o.env"))  # type: ignore[arg-type]


def counting(directory: Path, names: str, **settings: tuple[str, ...]) -> list[str]:
    return [name for name in names.split() if watch(directory, **settings).counts(directory / name)]


def test_python_files_count_but_no_hidden_or_temporary_ones(tmp_path: Path) -> None:
    names = "a.py b/c.py .a.py ~a.py a.pyc a.txt .venv/lib/a.py b/.git/a.py .sw.py"
    assert counting(tmp_path, names) == ["a.py", "b/c.py"]


def test_files_of_settings_count_whatever_their_names(tmp_path: Path) -> None:
    assert counting(tmp_path, "pyproject.toml other.toml /etc/o.env /etc/a.py") == [
        "pyproject.toml",
        "/etc/o.env",
    ]


def test_patterns_are_added_to_the_defaults(tmp_path: Path) -> None:
    assert counting(tmp_path, "a.py t/a.html a.txt", reload_include=("*.html",)) == ["a.py", "t/a.html"]
    assert counting(tmp_path, "a.py b_pb2.py t/a.py", reload_exclude=("*_pb2.py", "t")) == ["a.py"]


def test_a_pattern_of_the_settings_overrides_a_default(tmp_path: Path) -> None:
    assert counting(tmp_path, ".a.py .env", reload_include=(".*",)) == [".a.py", ".env"]
    assert counting(tmp_path, "a.py a.html", reload_exclude=("*.py",), reload_include=("*.html",)) == [
        "a.html"
    ]
    assert counting(tmp_path, ".env .other", reload_include=(".env",)) == [".env"]


def test_the_settings_say_which_directories_are_watched(tmp_path: Path) -> None:
    for name in ("src/sub", "lib", "tests"):
        (tmp_path / name).mkdir(parents=True)
    assert watch(tmp_path).directories == (tmp_path,)
    both = watch(tmp_path, reload_dir=("src", "src/sub"), reload_include=("lib",))
    assert both.directories == (tmp_path / "lib", tmp_path / "src")
    without = watch(tmp_path, reload_dir=("src", "lib"), reload_exclude=("lib",))
    assert without.directories == (tmp_path / "src",)
    assert counting(tmp_path, "tests/a.py src/a.py", reload_exclude=("tests",)) == ["src/a.py"]
    assert counting(tmp_path, "src/a.py lib/a.py", reload_dir=("src",)) == ["src/a.py"]


INSTALLED = [
    "venv/lib/a.py",
    "env/bin/a.py",
    "web/node_modules/x/a.py",
    "lib/python3.12/site-packages/x/a.py",
    "usr/lib/python3/dist-packages/a.py",
    "__pypackages__/3.12/lib/a.py",
    "mine/lib/a.py",
    "tools/other/lib/python3.12/a.py",
    "conda/lib/python3.12/a.py",
]


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with all kinds of environments in it."""
    for name in (*INSTALLED, "a.py", "src/a.py", "build/a.py", "dist/a.py", "environment/a.py"):
        write(tmp_path / name)
    write(tmp_path / "mine/pyvenv.cfg")
    write(tmp_path / "tools/other/pyvenv.cfg")
    write(tmp_path / "conda/conda-meta/history")
    return tmp_path


@pytest.mark.parametrize("name", INSTALLED)
def test_what_is_installed_does_not_count(project: Path, name: str) -> None:
    assert not watch(project).counts(project / name)
    assert not watch(project, reload_dir=(".",)).counts(project / name)


@pytest.mark.parametrize("name", ["a.py", "src/a.py", "build/a.py", "dist/a.py", "environment/a.py"])
def test_what_is_not_installed_counts(project: Path, name: str) -> None:
    assert watch(project).counts(project / name)


def test_a_package_with_the_name_of_an_environment_counts(tmp_path: Path) -> None:
    write(tmp_path / "env/__init__.py")
    assert counting(tmp_path, "env/a.py env/inner/a.py") == ["env/a.py", "env/inner/a.py"]


def test_an_environment_that_is_made_later_does_not_count(tmp_path: Path) -> None:
    made_before = watch(tmp_path)
    write(tmp_path / "mine/lib/a.py")
    assert made_before.counts(tmp_path / "mine/lib/a.py")
    write(tmp_path / "mine/pyvenv.cfg")
    assert not made_before.counts(tmp_path / "mine/lib/a.py")


def test_the_working_directory_may_be_an_environment(tmp_path: Path) -> None:
    write(tmp_path / "pyvenv.cfg")
    assert counting(tmp_path, "a.py src/a.py lib/python3.12/site-packages/a.py") == ["a.py", "src/a.py"]


@pytest.mark.parametrize(
    ("include", "name"),
    [
        ("venv", "venv/lib/python3.12/site-packages/x.py"),
        ("mine", "mine/lib/a.py"),
        ("tools/other", "tools/other/lib/python3.12/a.py"),
        ("node_modules", "web/node_modules/x/a.py"),
        ("venv/lib/*.py", "venv/lib/a.py"),
        ("site-packages", "lib/python3.12/site-packages/x/a.py"),
        (".hidden", ".hidden/a.py"),
        ("later", "later/a.py"),
    ],
)
def test_an_include_brings_back_what_is_installed_or_hidden(project: Path, include: str, name: str) -> None:
    write(project / ".hidden/a.py")
    watched = watch(project, reload_include=(include,))
    assert watched.counts(project / name)
    assert watched.counts(project / "src/a.py")
    assert not watched.counts(project / "env/bin/a.py")


def test_a_directory_that_was_asked_for_counts_also_in_an_environment(project: Path) -> None:
    mine = "venv/lib/python3.12/site-packages/mine"
    write(project / mine / "a.py")
    names = f"a.py {mine}/a.py venv/lib/python3.12/site-packages/other/a.py src/node_modules/a.py"
    assert counting(project, names, reload_dir=(mine,)) == [f"{mine}/a.py"]
    assert counting(project, names, reload_dir=(".", mine)) == ["a.py", f"{mine}/a.py"]
    assert counting(project, names, reload_dir=("venv",)) == names.split()[1:3]
    assert counting(project, names, reload_dir=("src",)) == []


def test_a_path_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="reload_dir is 'none': there is no such directory to watch"):
        watch(tmp_path, reload_dir=("none",))


class Reports:
    """A loop that stops at the first report, and the paths that a watcher has reported."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.paths: list[Path] = []

    def __call__(self, paths: list[Path]) -> None:
        self.paths += paths
        self.loop.stop()


def test_files_are_polled_when_the_kernel_refuses_to_notify(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[object] = []

    def refusing(*paths: Path, **options: Any) -> Iterator[set[tuple[int, str]]]:
        asked.append(options["force_polling"])
        if not options["force_polling"]:
            raise OSError(28, "No space left on device (OS file watch limit reached)")
        yield {(2, str(tmp_path / "a.py")), (2, str(tmp_path / "a.txt"))}
        options["stop_event"].wait(30)

    reports = Reports()
    watcher = FileWatcher(Watch((tmp_path,)), refusing)  # type: ignore[arg-type]
    watcher.start(reports.loop, reports)
    reports.loop.run_forever()
    watcher.stop()
    reports.loop.close()
    assert reports.paths == [tmp_path / "a.py"]
    assert asked == [None, True]
    assert "Watching by polling" in caplog.text
    assert not [thread for thread in threading.enumerate() if thread.name == "ostler-watch"]


class FakeWatcher:
    """A watcher that reports what the test calls `report` with."""

    method = "WatchFiles"

    def __init__(self, directory: Path) -> None:
        self.watch = Watch((directory,), files=(directory / "o.toml",))

    def start(self, loop: EventLoop, changed: Any) -> None:
        self.report = changed

    def stop(self) -> None:
        pass


def test_changes_within_the_delay_after_a_reload_become_one_more_reload(tmp_path: Path) -> None:
    loop = EventLoop()
    watcher = FakeWatcher(tmp_path)
    reloader = Reloader(watcher, delay=0.05, directory=str(tmp_path))  # type: ignore[arg-type]
    asked: list[tuple[str, bool]] = []

    def reload(why: str, settings: bool) -> None:
        asked.append((why, settings))
        if len(asked) == 2:
            loop.stop()

    absorbs = [False]
    reloader.start(loop, reload, lambda: absorbs[0])
    watcher.report([tmp_path / "a.py"])
    watcher.report([tmp_path / "b.py"])
    watcher.report([tmp_path / "c.py", Path("/elsewhere/d.py")])
    absorbs[0] = True  # from here on no worker has read the code: only changed settings are reported
    watcher.report([tmp_path / "e.py"])
    watcher.report([tmp_path / "o.toml"])
    assert len(asked) == 1
    loop.run_forever()
    reloader.stop()
    loop.close()
    assert asked == [
        ("WatchFiles detected changes in 'a.py'. Reloading...", False),
        ("WatchFiles detected changes in '/elsewhere/d.py', 'b.py', 'c.py', 'o.toml'. Reloading...", True),
    ]
