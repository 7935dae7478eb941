"""Starts and stops in hostile environments: blocked loops, full pipes, closed streams, blocked signals."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.live.clients import get, open_get
from tests.live.harness import Ostler, ProcessFamily, both, elapsed, environment, wait_until

GRACE = ["--timeout-graceful-shutdown", "1"]

BLOCKING_LIFESPAN = """
import time


async def app(scope, receive, send):
    print("starting", flush=True)
    time.sleep(600)  # in the app
"""


@both
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_stop_ends_though_the_event_loop_is_blocked(project: Path, mode: list[str], loop: str) -> None:
    one = ["--workers", "1"] if mode else []
    with Ostler(project, "main:app", "--port", "0", "--loop", loop, *GRACE, *one) as ostler:
        assert get(ostler.port).status_code == 200
        with open_get(ostler.port, "/block?600"):
            began = time.monotonic()
            ostler.family()
            ostler.send(signal.SIGTERM)
            ostler.wait()
            ostler.wait_gone()
            assert elapsed(began) < 40
        ostler.log.wait_for(r'File ".*main.py", line \d+ in block_the_loop')


@both
def test_a_stop_ends_though_the_lifespan_is_blocked(project: Path, mode: list[str]) -> None:
    (project / "main.py").write_text(BLOCKING_LIFESPAN)
    with Ostler(project, "main:app", "--port", "0", *GRACE, *mode) as ostler:
        ostler.out.wait_for("starting")
        ostler.family()
        ostler.send(signal.SIGTERM)
        ostler.wait()
        ostler.wait_gone()


def test_a_failed_start_ends_though_a_thread_still_runs(project: Path) -> None:
    (project / "main.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,)).start()  # in the app\n"
        "raise RuntimeError('boom')\n"
    )
    with Ostler(project, "main:app", "--port", "0", *GRACE) as ostler:
        ostler.log.wait_for("could not be imported: RuntimeError: boom")
        assert ostler.wait() != 0


@both
def test_a_stop_ends_though_the_pipe_of_the_log_is_full(project: Path, mode: list[str]) -> None:
    reader, writer = os.pipe()
    fill(writer)
    process = subprocess.Popen(
        [sys.executable, "-m", "ostler", "main:app", "--uds", "app.sock", *GRACE, *mode],
        cwd=project,
        env=environment(None),
        stdout=writer,
        stderr=writer,
    )
    family = ProcessFamily(process)
    try:
        wait_until((project / "app.sock").exists, "the socket exists")
        family.alive()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, 1)
        wait_until(lambda: not family.alive(), "no process is left")
    finally:
        family.kill()
        os.close(reader)
        os.close(writer)


def fill(pipe: int) -> None:
    os.set_blocking(pipe, False)
    try:
        while True:
            os.write(pipe, bytes(4096))
    except BlockingIOError:
        os.set_blocking(pipe, True)


def test_a_large_env_file_reaches_the_application(project: Path) -> None:
    (project / "big.env").write_text("".join(f"VALUE_{n}={'x' * 1000}\n" for n in range(200)))
    (project / "main.py").write_text(
        "import os\nassert len(os.environ['VALUE_199']) == 1000\n" + (project / "main.py").read_text()
    )
    with Ostler(project, "main:app", "--port", "0", "--workers", "1", "--env-file", "big.env") as ostler:
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0


def test_a_forked_copy_of_a_worker_does_not_report_in_its_place(project: Path) -> None:
    (project / "main.py").write_text("import os\nos.fork()\nraise RuntimeError('boom')\n")
    # Not on uvloop: libuv sometimes aborts when two processes close the same loop.
    with Ostler(project, "main:app", "--port", "0", "--workers", "1", "--loop", "asyncio") as ostler:
        assert ostler.wait() == 3
    assert "RuntimeError: boom" in ostler.log.text.splitlines()[-1]


FORKS = """
import threading, warnings
warnings.simplefilter("error")


async def forking(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/fork":
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
    await app(scope, receive, send)


def fork_for_three_seconds():
    warnings.simplefilter("ignore")  # of the thread that this function runs in
    end = time.monotonic() + 3
    while time.monotonic() < end:
        if (child := os.fork()) == 0:
            os._exit(0)
        os.waitpid(child, 0)
    print("forked", flush=True)


async def storm(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/fork":
        threading.Thread(target=fork_for_three_seconds).start()
    await app(scope, receive, send)
"""


def test_a_fork_in_a_worker_meets_no_thread_of_ostlers(project: Path) -> None:
    """Python 3.12 and newer warn if it did; the warning is an error here."""
    (project / "main.py").write_text((project / "main.py").read_text() + FORKS)
    with Ostler(project, "main:forking", "--port", "0", "--workers", "1") as ostler:
        for _ in range(20):
            assert get(ostler.port, "/fork").status_code == 200
        assert ostler.stop() == 0
    assert "DeprecationWarning" not in ostler.log.text


def test_a_worker_that_forks_all_the_time_keeps_its_heartbeat(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + FORKS)
    short = ("--timeout-worker-healthcheck", "1")
    with Ostler(project, "main:storm", "--port", "0", "--workers", "1", *short) as ostler:
        assert get(ostler.port, "/fork").status_code == 200
        ostler.out.wait_for("forked")
        assert ostler.stop() == 0
    lines = ostler.log.text.splitlines()
    assert [line for line in lines if line.startswith(("WARNING", "ERROR", "CRITICAL"))] == []


@both
@pytest.mark.parametrize("closed", ["2>&-", "0<&- 1>&- 2>&-"])
def test_ostler_serves_with_closed_standard_streams(project: Path, mode: list[str], closed: str) -> None:
    main = project / "main.py"
    main.write_text("print('to nowhere', flush=True)\n" + main.read_text())
    args = " ".join(["main:app", "--uds", "app.sock", *mode])
    process = subprocess.Popen(
        ["sh", "-c", f"exec {sys.executable} -m ostler {args} {closed}"], cwd=project, env=environment(None)
    )
    family = ProcessFamily(process)
    try:
        wait_until(lambda: is_served_at(project / "app.sock"), "a request is answered")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        family.kill()


def is_served_at(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        try:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return client.recv(1000).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


EXECUTOR = """
import concurrent.futures
import multiprocessing

executor = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))


async def pooled(scope, receive, send):
    if scope["type"] == "http":
        assert executor.submit(abs, -1).result() == 1
    await app(scope, receive, send)
"""


def test_a_stop_ends_though_the_application_has_an_idle_process_pool(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + EXECUTOR)
    with Ostler(project, "main:pooled", "--port", "0", "--workers", "1") as ostler:
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0
    assert "aborted" not in ostler.log.text


@both
def test_signals_that_the_parent_process_had_blocked_are_handled(project: Path, mode: list[str]) -> None:
    blocked = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
    code = (
        f"import os, signal, sys; signal.pthread_sigmask(signal.SIG_BLOCK, {set(map(int, blocked))});"
        "os.execv(sys.executable, [sys.executable, '-m', 'ostler', *sys.argv[1:]])"
    )
    with Ostler(project, "main:app", "--port", "0", *mode, program=["-c", code]) as ostler:
        assert get(ostler.port).status_code == 200
        if mode:
            ostler.wait_ready(2)
            psutil.Process(next(iter(ostler.workers()))).kill()
            ostler.wait_ready(3)
        assert ostler.stop() == 0


@both
@pytest.mark.parametrize(
    "failure",
    ["import sys; sys.exit(0)", "raise KeyboardInterrupt", "import asyncio; raise asyncio.CancelledError"],
)
def test_an_application_that_exits_at_import_is_a_failed_start(
    project: Path, mode: list[str], failure: str
) -> None:
    (project / "main.py").write_text(failure + "\n")
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        assert ostler.wait() == 3
    assert "main.py, line 1" in ostler.log.text.splitlines()[-1]


@both
def test_a_lifespan_that_is_cancelled_is_a_failed_start(project: Path, mode: list[str]) -> None:
    (project / "main.py").write_text(
        "import asyncio\nasync def app(scope, receive, send):\n    raise asyncio.CancelledError\n"
    )
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        assert ostler.wait() == 3
    assert "CancelledError" in ostler.log.text.splitlines()[-1]


def test_a_fork_that_outlives_its_worker_does_not_keep_the_port(project: Path) -> None:
    (project / "main.py").write_text(
        (project / "main.py").read_text()
        + "\nif os.fork() == 0:\n    time.sleep(600)  # in the app\n    os._exit(0)\n"
    )
    with Ostler(project, "main:app", "--port", "0", "--workers", "1") as ostler:
        port = ostler.port
        assert get(port).status_code == 200
        assert ostler.stop() == 0
        with socket.create_server(("127.0.0.1", port)):
            pass


def test_the_number_of_workers_follows_the_file_to_auto_and_survives_its_removal(project: Path) -> None:
    config = project / "ostler.toml"
    config.write_text("workers = 1\n")
    with Ostler(project, "main:app", "--port", "0", "--config", "ostler.toml") as ostler:
        ostler.wait_ready(1)
        config.write_text('workers = "auto"\n')
        ostler.send(signal.SIGHUP)
        cpus = len(os.sched_getaffinity(0))
        ostler.wait_worker_count(cpus)
        config.write_text("")
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("workers is not set any more")
        assert ostler.stop() == 0


def test_signals_do_not_end_a_plain_server_while_the_application_is_imported(project: Path) -> None:
    main = project / "main.py"
    main.write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(2)  # in the app\n" + main.read_text()
    )
    with Ostler(project, "main:app", "--port", "0") as ostler:
        ostler.out.wait_for("importing")
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGTTIN):
            ostler.send(number)
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0
    assert "SIGHUP ignored" in ostler.log.text


def test_a_stop_at_any_instant_of_a_plain_servers_boot_ends_without_a_traceback(project: Path) -> None:
    for step in range(20):
        with Ostler(project, "main:app", "--port", "0") as ostler:
            ostler.log.wait_for("running on")
            ostler.run_for(step * 0.01)  # the signal comes 10 ms later in each run
            ostler.send(signal.SIGTERM)
            assert ostler.wait() == 0
        assert "Traceback" not in ostler.log.text
