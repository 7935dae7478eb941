"""Several signals, in any order and in any state: each is heeded."""

import os
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.live.harness import Ostler, wait_until
from tests.live.test_serving import get, slow_request

GRACE = ["--timeout-graceful-shutdown", "1"]


def test_stopped_workers_do_not_hold_up_a_stop(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "4", *GRACE) as ostler:
        ostler.wait_ready(4)
        for worker in ostler.workers():
            os.kill(worker, signal.SIGSTOP)
        assert ostler.stop() == 0
    assert ostler.log.text.count("was killed by SIGKILL (sent by ostler)") == 4


@pytest.mark.parametrize(
    "orders",
    [
        [signal.SIGHUP, signal.SIGTERM],
        [signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGHUP, signal.SIGTERM, signal.SIGTERM],
        [signal.SIGTTIN, signal.SIGTTIN, signal.SIGINT, signal.SIGTERM, signal.SIGINT],
        [signal.SIGTERM, signal.SIGHUP, signal.SIGTTIN, signal.SIGUSR1],
        [signal.SIGHUP, signal.SIGQUIT],
    ],
    ids=lambda orders: "+".join(order.name[3:] for order in orders),
)
def test_signals_at_once_are_all_heeded(project: Path, orders: list[signal.Signals]) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "2", *GRACE) as ostler:
        ostler.wait_ready(2)
        ostler.family()
        for order in orders:
            ostler.send(order)
        assert ostler.wait() == 0
        wait_until(lambda: not ostler.family(), "no process is left")
    assert "Traceback" not in ostler.log.text


def test_sigterm_during_a_roll_ends_old_and_new_workers(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "3") as ostler:
        ostler.wait_ready(3)
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
    with Ostler(project, "main:logging_app", "--port", "0", "--workers", "1") as ostler:
        ostler.wait_ready(1)
        get(ostler.port)
        log = project / "1.log"
        assert log.read_text() == "asked\n"
        log.rename(project / "rotated.log")
        ostler.send(signal.SIGUSR1)

        def reopened() -> bool:
            get(ostler.port)
            return log.exists()

        wait_until(reopened, "the log file is there anew")
        assert list(ostler.workers().values()) == [1]


def test_sigusr2_to_a_worker_shows_its_stacks(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "1") as ostler:
        ostler.wait_ready(1)
        [worker] = ostler.workers()
        os.kill(worker, signal.SIGUSR2)
        ostler.log.wait_for(rf'Worker 1 \(pid {worker}\) \|   File ".*heartbeat.py", line \d+ in _run')
        assert get(ostler.port).status_code == 200


def test_a_worker_ignores_the_terminals_interrupt(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "1") as ostler:
        ostler.wait_ready(1)
        [worker] = ostler.workers()
        os.kill(worker, signal.SIGINT)
        os.kill(worker, signal.SIGHUP)
        assert get(ostler.port).status_code == 200
        assert list(ostler.workers()) == [worker]


def test_scaling_down_lets_requests_in_flight_finish(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "2") as ostler:
        ostler.wait_ready(2)
        clients = [slow_request(ostler.port, 2) for _ in range(8)]
        ostler.send(signal.SIGTTOU)
        ostler.log.wait_for("Scaled from 2 workers to 1")
        for client in clients:
            with client:
                assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        wait_until(lambda: len(ostler.workers()) == 1, "one worker is left")


def test_an_arbiter_frozen_along_with_its_workers_kills_nobody(project: Path) -> None:
    healthcheck = ["--timeout-worker-healthcheck", "2"]
    with Ostler(project, "main:app", "--port", "0", "--workers", "2", *healthcheck) as ostler:
        ostler.wait_ready(2)
        workers = ostler.workers()
        everyone = [ostler.pid, *workers]
        for pid in everyone:
            os.kill(pid, signal.SIGSTOP)
        record = time.monotonic()
        wait_until(lambda: time.monotonic() > record + 4, "twice the healthcheck has passed")
        for pid in everyone:
            os.kill(pid, signal.SIGCONT)
        thawed = time.monotonic()
        wait_until(lambda: time.monotonic() > thawed + 4, "twice the healthcheck has passed")
        assert ostler.workers() == workers
    assert "aborted" not in ostler.log.text


@pytest.mark.parametrize("mode", [[], ["--workers", "1"]], ids=str)
def test_one_sigterm_too_many_while_the_process_exits_is_no_death(project: Path, mode: list[str]) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        ostler.log.wait_for("Application startup complete")
        process = psutil.Process(ostler.pid)
        ostler.send(signal.SIGTERM)

        def gone() -> bool:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
            process.send_signal(signal.SIGTERM)
            return False

        while not gone():
            pass
        assert ostler.wait() == 0
