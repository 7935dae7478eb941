"""--pid-file: written at the start, refused while its process runs, replaced when that has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ostler.errors import SettingsError
from ostler.system.pid_file import PidFile
from tests.live.harness import Ostler, wait_until
from tests.live.upgrades import upgrading


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "inn.pid"


def test_the_file_has_the_pid_and_a_line_break_and_mode_644(path: Path) -> None:
    before = os.umask(0o077)
    try:
        PidFile(str(path), "/").write()
    finally:
        os.umask(before)
    assert path.read_text() == f"{os.getpid()}\n"
    assert path.stat().st_mode & 0o777 == 0o644
    assert [entry.name for entry in path.parent.iterdir()] == ["inn.pid"]


def test_a_relative_path_is_relative_to_the_working_directory(path: Path) -> None:
    PidFile("inn.pid", str(path.parent)).write()
    assert path.exists()


def test_the_file_of_a_running_process_is_refused_but_not_that_of_the_arbiter_being_replaced(
    path: Path,
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        path.write_text(f"{process.pid}\n")
        file = PidFile(str(path), "/")
        with pytest.raises(SettingsError, match=f"that of process {process.pid}, which runs"):
            file.refuse_live()
        file.refuse_live(process.pid)
        # The file is older than the process: another process had that pid when it was written.
        os.utime(path, (time.time() - 3600,) * 2)
        file.refuse_live()
    finally:
        process.communicate(b"\n")
    os.utime(path)
    file.refuse_live()


@pytest.mark.parametrize("text", ["", "nonsense", "0", "-1", "99999999999999999999", "ourselves"])
def test_a_file_without_the_pid_of_another_process_is_stale(path: Path, text: str) -> None:
    path.write_text(str(os.getpid()) if text == "ourselves" else text)
    PidFile(str(path), "/").refuse_live()


def test_only_a_file_with_the_own_pid_is_removed(path: Path) -> None:
    file = PidFile(str(path), "/")
    file.remove()
    path.write_text("1\n")
    file.remove()
    assert path.exists()
    file.write()
    file.remove()
    assert not path.exists()


def test_a_path_that_cannot_be_used_is_a_settings_error_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot write the pid file .*No such file"):
        PidFile(str(tmp_path / "absent" / "inn.pid"), "/").write()
    (tmp_path / "directory").mkdir()
    with pytest.raises(SettingsError, match=r"cannot read the pid file .*Is a directory"):
        PidFile(str(tmp_path / "directory"), "/").refuse_live()


@pytest.mark.parametrize("workers", [("--workers", "1"), ()])
def test_a_server_writes_the_file_refuses_a_second_server_and_removes_the_file(
    project: Path, path: Path, workers: tuple[str, ...]
) -> None:
    arguments = ("main:app", "--port", "0", "--pid-file", str(path), *workers)
    with Ostler(project, *arguments) as ostler:
        ostler.log.wait_for("Application startup complete")
        assert int(path.read_text()) == ostler.pid
        with Ostler(project, *arguments) as second:
            assert second.wait() == 2
            wait_until(lambda: "which runs: stop it" in second.log.text, "the refusal is written")
            assert "Traceback" not in second.log.text
        assert int(path.read_text()) == ostler.pid
        assert ostler.stop() == 0
    assert not path.exists()


def test_the_file_that_a_killed_server_has_left_is_replaced(project: Path, path: Path) -> None:
    arguments = ("main:app", "--port", "0", "--pid-file", str(path))
    with Ostler(project, *arguments) as ostler:
        ostler.log.wait_for("Application startup complete")
        ostler.send(signal.SIGKILL)
        ostler.wait()
    assert path.exists()
    with Ostler(project, *arguments) as ostler:
        ostler.log.wait_for("Application startup complete")
        assert int(path.read_text()) == ostler.pid
        assert ostler.stop() == 0


def test_after_an_upgrade_the_file_has_the_pid_of_the_new_arbiter(project: Path, path: Path) -> None:
    good = (project / "main.py").read_text()
    with upgrading(project, "main:app", "--port", "0", "--workers", "2", "--pid-file", str(path)) as run:
        (project / "main.py").write_text("raise ImportError\n")
        run.ostler.send(signal.SIGUSR2)
        run.ostler.log.wait_for("Upgrade given up")
        assert int(path.read_text()) == run.ostler.pid
        (project / "main.py").write_text(good)
        run.ostler.send(signal.SIGUSR2)
        run.ostler.log.wait_for(r"taken over from")
        new = run.wait_started(2)
        assert int(path.read_text()) == new
        assert new != run.ostler.pid
        assert run.ostler.wait() == 0
        assert int(path.read_text()) == new
        run.stop()
    assert not path.exists()
