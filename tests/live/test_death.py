"""Workers that die, and an arbiter that dies: what is lost, what is said, what comes back."""

import contextlib
import signal
import socket
from pathlib import Path

import psutil
import pytest

from tests.live.harness import Ostler, wait_until
from tests.live.load import Load
from tests.live.test_serving import SUPERVISED, get, slow_request


def test_a_killed_worker_is_replaced_and_costs_only_what_was_in_flight_in_it(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--workers", "2") as ostler:
        ostler.wait_ready(2)
        with Load(ostler.port, kept=4, fresh=2) as load:
            victim = next(iter(ostler.workers()))
            psutil.Process(victim).kill()
            ostler.log.wait_for(rf"Worker \d \(pid {victim}\) was killed by SIGKILL \(not sent by ostler\)")
            ostler.wait_ready(3)
            load.wait_answers(200)
        assert ostler.stop() == 0
    # At most one request on each of the load's connections can have been in flight there.
    assert load.failures.total() <= 6


def test_the_log_says_why_a_worker_died(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + DEADLY)
    with Ostler(project, "main:deadly", "--port", "0", *SUPERVISED) as ostler:
        ostler.wait_ready(2)
        with pytest.raises(Exception, match=r"disconnected|reset"):
            get(ostler.port, "/exit")
        ostler.log.wait_for(r"Worker \d \(pid \d+\) exited with code 9 after serving for ")
        ostler.wait_ready(3)
        with pytest.raises(Exception, match=r"disconnected|reset"):
            get(ostler.port, "/segv")
        ostler.log.wait_for(r"Worker \d \(pid \d+\) was killed by SIGSEGV \(not sent by ostler\)")
        # faulthandler's stack of a crash in C comes along, under the worker's name.
        ostler.log.wait_for(r'Worker \d \(pid \d+\) \|   File ".*main.py", line \d+ in deadly')


DEADLY = """

async def deadly(scope, receive, send):
    if scope["path"] == "/exit":
        os._exit(9)
    if scope["path"] == "/segv":
        import ctypes
        ctypes.string_at(0)
    await app(scope, receive, send)
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_when_the_arbiter_is_killed_requests_finish_and_the_workers_go(project: Path, loop: str) -> None:
    with Ostler(project, "main:app", "--port", "0", *SUPERVISED, "--loop", loop) as ostler:
        ostler.wait_ready(2)
        port = ostler.port
        ostler.family()
        with slow_request(port, 2) as client:
            ostler.send(signal.SIGKILL)
            ostler.wait()
            answer = client.recv(1000)
            assert answer.startswith(b"HTTP/1.1 200 OK")
        wait_until(lambda: not ostler.family(), "the workers are gone")
        with socket.create_server(("127.0.0.1", port)):
            pass  # the port is free


def test_when_the_arbiter_is_killed_a_blocked_worker_goes_too(project: Path) -> None:
    grace = ["--timeout-graceful-shutdown", "1"]
    with Ostler(project, "main:app", "--port", "0", "--workers", "1", *grace) as ostler:
        ostler.wait_ready(1)
        with socket.create_connection(("127.0.0.1", ostler.port)) as client:
            client.sendall(b"GET /block?60 HTTP/1.1\r\nHost: test\r\n\r\n")
            ostler.family()
            ostler.send(signal.SIGKILL)
            ostler.wait()
            wait_until(lambda: not ostler.family(), "the blocked worker is gone", timeout=20)


def test_a_crashing_worker_is_retried_at_growing_intervals_and_recovers(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", *SUPERVISED) as ostler:
        ostler.wait_ready(2)
        good = (project / "main.py").read_text()
        (project / "main.py").write_text("raise RuntimeError('storm')\n")
        for worker in ostler.workers():
            psutil.Process(worker).kill()
        ostler.log.wait_for(r"next try in 1 s", count=2)
        (project / "main.py").write_text(good)
        ostler.wait_ready(4)
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0


def test_a_killed_workers_own_children_go_with_it(project: Path) -> None:
    (project / "main.py").write_text(
        "import subprocess, sys\n"
        + (project / "main.py").read_text()
        + "\nsubprocess.Popen([sys.executable, '-c', 'input()'], stdin=subprocess.PIPE)\n"
    )
    with Ostler(project, "main:app", "--port", "0", "--workers", "1") as ostler:
        ostler.wait_ready(1)
        [worker] = ostler.workers()
        [grandchild] = psutil.Process(worker).children()
        psutil.Process(worker).kill()
        wait_until(lambda: not grandchild.is_running(), "the grandchild is gone")
        ostler.wait_ready(2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_is_heeded_at_any_instant_of_a_boot(project: Path, number: signal.Signals) -> None:
    """Ever later in the boot, in steps of some milliseconds, until the workers are ready."""
    ready = False
    steps = 0
    while not ready:
        with Ostler(project, "main:app", "--port", "0", *SUPERVISED) as ostler:
            ostler.log.wait_for("Started arbiter process")
            deadline_of_step(steps * 0.03, ostler)
            ready = ostler.log.text.count(") is ready") == 2
            ostler.family()
            ostler.send(number)
            assert ostler.wait(timeout=20) == 0
            wait_until(lambda: not ostler.family(), "no process is left")
        assert "Traceback" not in ostler.log.text
        steps += 1
    assert steps > 3


def deadline_of_step(seconds: float, ostler: Ostler) -> None:
    """Let the boot go on for a while, or until it is done."""
    with contextlib.suppress(AssertionError):
        ostler.wait_ready(2, timeout=seconds)


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
        wait_until(lambda: not ostler.family(), "no process is left")
    assert "RuntimeError: a defect" in ostler.log.text
    assert "internal error" in ostler.log.text.splitlines()[-1]
    assert ostler.log.text.count("Finished server process") == 2
