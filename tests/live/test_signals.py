"""Signals to the arbiter and to workers, several at once and in any state: each takes effect."""

import os
import signal
from pathlib import Path

import psutil
import pytest

from tests.live.clients import get, slow_request
from tests.live.harness import Ostler, serving, wait_until

GRACE = ["--timeout-graceful-shutdown", "1"]


def test_a_stop_ends_though_all_workers_are_suspended(project: Path) -> None:
    with serving(project, "--workers", "4", *GRACE) as ostler:
        for worker in ostler.workers():
            os.kill(worker, signal.SIGSTOP)
        assert ostler.stop() == 0
    assert ostler.log.text.count("was killed by SIGKILL (sent by ostler)") == 4


@pytest.mark.parametrize(
    "numbers",
    [
        [signal.SIGHUP, signal.SIGTERM],
        [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM],
        [signal.SIGTTIN, signal.SIGTTIN, signal.SIGINT, signal.SIGTERM, signal.SIGINT],
        [signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR1],
        [signal.SIGHUP, signal.SIGQUIT],
    ],
    ids=lambda numbers: "+".join(number.name[3:] for number in numbers),
)
def test_signals_at_once_all_take_effect(project: Path, numbers: list[signal.Signals]) -> None:
    with serving(project, "--workers", "2", *GRACE) as ostler:
        ostler.family()
        for number in numbers:
            ostler.send(number)
        assert ostler.wait() == 0
        ostler.wait_gone()
    assert "Traceback" not in ostler.log.text


def test_sigterm_during_a_roll_ends_old_and_new_workers(project: Path) -> None:
    with serving(project, "--workers", "3") as ostler:
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 begins")
        ostler.family()
        assert ostler.stop() == 0


LOGGING = """
import logging

logger = logging.getLogger("mine")
logger.addHandler(logging.FileHandler(f"{os.environ['OSTLER_SLOT']}.log"))


async def logging_app(scope, receive, send):
    if scope["type"] == "http":
        logger.error("asked")
    await app(scope, receive, send)
"""


def test_sigusr1_reopens_log_files_in_every_process(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + LOGGING)
    with serving(project, "--workers", "1", app="main:logging_app") as ostler:
        get(ostler.port)
        log = project / "1.log"
        assert log.read_text() == "asked\n"
        log.rename(project / "rotated.log")
        ostler.send(signal.SIGUSR1)

        def reopened() -> bool:
            get(ostler.port)
            return log.exists()

        wait_until(reopened, "the log file exists again")
        assert list(ostler.workers().values()) == [1]


def test_sigusr2_to_a_worker_logs_its_stacks(project: Path) -> None:
    with serving(project, "--workers", "1") as ostler:
        [worker] = ostler.workers()
        os.kill(worker, signal.SIGUSR2)
        ostler.log.wait_for(rf'Worker 1 \(pid {worker}\) \|   File ".*heartbeat.py", line \d+ in _run')
        stacks = ostler.log.text
        assert stacks.index("in run_worker") < stacks.index("in _run\n")  # the loop's thread first
        assert get(ostler.port).status_code == 200


def test_a_worker_ignores_sigint_and_sighup(project: Path) -> None:
    with serving(project, "--workers", "1") as ostler:
        [worker] = ostler.workers()
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGHUP)
        assert get(ostler.port).status_code == 200
        assert list(ostler.workers()) == [worker]


def test_scaling_down_lets_requests_in_flight_finish(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        clients = [slow_request(ostler.port, 2) for _ in range(8)]
        ostler.send(signal.SIGTTOU)
        ostler.log.wait_for("Scaled from 2 workers to 1")
        for client in clients:
            with client:
                assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        ostler.wait_worker_count(1)


def test_an_arbiter_that_is_suspended_along_with_its_workers_kills_none_of_them(project: Path) -> None:
    healthcheck = ["--timeout-worker-healthcheck", "2"]
    with serving(project, "--workers", "2", *healthcheck) as ostler:
        workers = ostler.workers()
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for pid in [ostler.pid, *workers]:
                os.kill(pid, number)
            ostler.run_for(2 * 2)  # twice the time-out of the healthcheck
        assert ostler.workers() == workers
    assert "aborted" not in ostler.log.text


@pytest.mark.parametrize("mode", [[], ["--workers", "1"]], ids=str)
def test_a_further_sigterm_while_the_process_exits_does_not_kill_it(project: Path, mode: list[str]) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        ostler.log.wait_for("Application startup complete")
        process = psutil.Process(ostler.pid)
        ostler.send(signal.SIGTERM)

        def has_exited() -> bool:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.send_signal(signal.SIGTERM)
            return False

        while not has_exited():
            pass
        assert ostler.wait() == 0
