"""Workers and arbiters that die: which requests fail, what is logged, and what is restarted."""

import contextlib
import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.live.clients import get, open_get, slow_request
from tests.live.harness import SUPERVISED, Ostler, serving, wait_until
from tests.live.load import Load


def test_a_killed_worker_is_replaced_and_only_its_requests_in_flight_are_lost(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        with Load(ostler.port, kept=4, fresh=2) as load:
            victim = next(iter(ostler.workers()))
            psutil.Process(victim).kill()
            ostler.log.wait_for(rf"Worker \d \(pid {victim}\) was killed by SIGKILL \(not sent by ostler\)")
            ostler.wait_ready(3)
            load.wait_answers(200)
        assert ostler.stop() == 0
    # At most one request on each of the load's six connections was in flight in that worker.
    assert load.failures.total() <= 6


def test_the_log_says_why_a_worker_died(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + DEADLY)
    with serving(project, "--workers", "2", app="main:deadly") as ostler:
        with pytest.raises(Exception, match=r"disconnected|reset"):
            get(ostler.port, "/exit")
        ostler.log.wait_for(r"Worker \d \(pid \d+\) exited with code 9 after serving for ")
        ostler.wait_ready(3)
        with pytest.raises(Exception, match=r"disconnected|reset"):
            get(ostler.port, "/segv")
        ostler.log.wait_for(r"Worker \d \(pid \d+\) was killed by SIGSEGV \(not sent by ostler\)")
        # The stack that faulthandler writes at a crash in C is logged under the worker's name.
        ostler.log.wait_for(r'Worker \d \(pid \d+\) \|   File ".*main.py", line \d+ in deadly')


DEADLY = """

async def deadly(scope, receive, send):
    if scope["path"] == "/exit":
        os._exit(9)
    if scope["path"] == "/segv":
        import faulthandler
        faulthandler._sigsegv()  # PyPy survives ctypes.string_at(0)
    await app(scope, receive, send)
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_when_the_arbiter_is_killed_requests_finish_and_the_workers_end(project: Path, loop: str) -> None:
    with serving(project, "--workers", "2", "--loop", loop) as ostler:
        port = ostler.port
        ostler.family()
        with slow_request(port, 2) as client:
            ostler.send(signal.SIGKILL)
            ostler.wait()
            answer = client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200 OK")
        ostler.wait_gone()
        with socket.create_server(("127.0.0.1", port)):
            pass  # the port is free


def test_when_the_arbiter_is_killed_a_blocked_worker_ends_too(project: Path) -> None:
    grace = ["--timeout-graceful-shutdown", "1"]
    with serving(project, "--workers", "1", *grace) as ostler, open_get(ostler.port, "/block?60"):
        ostler.family()
        ostler.send(signal.SIGKILL)
        ostler.wait()
        wait_until(lambda: not ostler.family(), "the blocked worker is gone", timeout=20)


def test_a_young_worker_that_is_killed_is_replaced_at_once(project: Path) -> None:
    with serving(project, "--workers", "1") as ostler:
        [first] = ostler.workers()
        psutil.Process(first).kill()
        ostler.log.wait_for(rf"Worker 1 \(pid {first}\) was killed by SIGKILL .*: successor starts now")
        assert get(ostler.port).status_code == 200
        [second] = ostler.workers()
        psutil.Process(second).kill()
        ostler.log.wait_for(rf"Worker 1 \(pid {second}\) was killed by SIGKILL .*: next try in 0\.5 s")
        assert get(ostler.port).status_code == 200


def test_a_crashing_worker_is_retried_at_growing_intervals_and_recovers(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        good = (project / "main.py").read_text()
        (project / "main.py").write_text("raise RuntimeError('storm')\n")
        for worker in ostler.workers():
            psutil.Process(worker).kill()
        ostler.log.wait_for(r"next try in 1 s", count=2)
        (project / "main.py").write_text(good)
        ostler.wait_ready(4)
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0


def test_children_of_a_killed_worker_are_killed_too(project: Path) -> None:
    (project / "main.py").write_text(
        "import subprocess, sys\n"
        + (project / "main.py").read_text()
        + "\nsubprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
    )
    with serving(project, "--workers", "1") as ostler:
        [worker] = ostler.workers()
        [grandchild] = psutil.Process(worker).children()
        psutil.Process(worker).kill()
        wait_until(lambda: not grandchild.is_running(), "the grandchild is gone")
        ostler.wait_ready(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_works_at_any_instant_of_a_boot(project: Path, number: signal.Signals) -> None:
    """The signal comes 30 ms later in each run, until the workers are ready before it."""
    ready = False
    steps = 0
    while not ready:
        with Ostler(project, "main:app", "--port", "0", *SUPERVISED) as ostler:
            ostler.log.wait_for("Started arbiter process")
            with contextlib.suppress(AssertionError):
                ostler.wait_ready(2, timeout=steps * 0.03)
            ready = ostler.log.text.count(") is ready") == 2
            ostler.family()
            ostler.send(number)
            assert ostler.wait(timeout=20) == 0
            ostler.wait_gone()
        assert "Traceback" not in ostler.log.text
        steps += 1
    assert steps > 3


DEFECT = """
import sys
from ostler.supervisor.fleet import fleet

handled = fleet.Fleet.handle

def handle(self, event, now):
    if self.ready == 2:
        raise RuntimeError("a defect")
    return handled(self, event, now)

fleet.Fleet.handle = handle
sys.argv = ["ostler", "main:app", "--port", "0", "--workers", "2"]
from ostler.cli.main import main
sys.exit(main())
"""


def test_a_defect_in_the_arbiter_lets_the_workers_drain_and_ends_with_1(project: Path) -> None:
    with Ostler(project, program=["-c", DEFECT]) as ostler:
        ostler.family()
        assert ostler.wait() == 1
        ostler.wait_gone()
    assert "RuntimeError: a defect" in ostler.log.text
    assert "internal error" in ostler.log.text.splitlines()[-1]
    assert ostler.log.text.count("Finished server process") == 2
