"""atexit hooks of the application (coverage, profilers) run in every worker, however its end is ordered."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.live.clients import get
from tests.live.harness import APP, PLAIN, SUPERVISED, Ostler, both, serving, wait_until
from tests.live.terminal import Terminal

HOOKED = (
    APP
    + """
import atexit


def note(what):
    with open("notes", "a") as notes:
        notes.write(f"{what} {os.getpid()}\\n")


atexit.register(note, "ended")
note("imported")
while os.path.exists("wait"):
    time.sleep(0.01)  # in the app
"""
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(HOOKED)
    return tmp_path


def noted(project: Path, what: str) -> set[str]:
    """Return the pids of the processes that have imported the application, or whose hook has run."""
    notes = project / "notes"
    lines = notes.read_text().splitlines() if notes.exists() else []
    return {line.split()[1] for line in lines if line.startswith(what)}


def check(project: Path, processes: int) -> None:
    assert len(noted(project, "imported")) >= processes
    assert noted(project, "ended") == noted(project, "imported")


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_at_a_stop(project: Path, mode: list[str], number: signal.Signals) -> None:
    with serving(project, *mode) as ostler:
        wait_until(lambda: get(ostler.port).status_code == 200, "it serves")
        assert ostler.stop(number) == 0
    check(project, 2 if mode else 1)


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_at_a_stop_while_the_application_is_imported(
    project: Path, mode: list[str], number: signal.Signals
) -> None:
    (project / "wait").touch()
    processes = 2 if mode else 1
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        wait_until(lambda: len(noted(project, "imported")) == processes, "the application is imported")
        assert ostler.stop(number) == 0
    check(project, processes)
    assert "Traceback" not in ostler.log.text


@pytest.mark.parametrize("mode", [PLAIN, SUPERVISED, ["--reload"]], ids=["plain", "supervised", "reload"])
@pytest.mark.parametrize("booting", [False, True])
def test_at_ctrl_c_in_a_terminal(project: Path, mode: list[str], booting: bool) -> None:
    processes = 2 if "--workers" in mode else 1
    if booting:
        (project / "wait").touch()
    with Terminal(project, "main:app", "--port", "0", *mode) as terminal:
        wait_until(lambda: len(noted(project, "imported")) == processes, "the application is imported")
        if not booting:
            terminal.wait_for("startup complete", processes)
        assert terminal.interrupt() == 0
    check(project, processes)


def test_at_a_sigint_for_the_whole_process_group(project: Path) -> None:
    with serving(project, *SUPERVISED, start_new_session=True) as ostler:
        workers = ostler.workers()
        os.killpg(ostler.pid, signal.SIGINT)
        for pid in workers:
            os.kill(pid, signal.SIGINT)
        assert ostler.wait() == 0
    check(project, 2)


def test_at_a_roll_and_at_a_reload(project: Path) -> None:
    with serving(project, *SUPERVISED) as ostler:
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        assert ostler.stop() == 0
    check(project, 4)
    with Ostler(project, "main:app", "--port", "0", "--reload") as ostler:
        ostler.log.wait_for("is ready")
        (project / "main.py").write_text(HOOKED + "\n# changed\n")
        ostler.log.wait_for("is ready", count=2)
        assert ostler.stop() == 0
    check(project, 6)


def test_when_a_worker_is_recycled_or_its_arbiter_has_died(project: Path) -> None:
    with serving(project, *SUPERVISED, "--limit-max-requests", "1") as ostler:
        for _ in range(2):
            get(ostler.port)
        ostler.log.wait_for("has taken its place")
        ostler.log.wait_for("exited with code 0")
        wait_until(lambda: len(ostler.workers()) == 2, "the other ones serve")
        ostler.family()
        ostler.send(signal.SIGKILL)
        ostler.wait_gone()
    check(project, 3)
