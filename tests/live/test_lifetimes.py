"""When the application starts up and shuts down, and what a stop waits for and logs."""

import signal
from pathlib import Path

import pytest

from tests.live.clients import get, open_get, slow_request
from tests.live.harness import Ostler, both, serving, wait_until

NOTING = """
import asyncio
import os


def note(text):
    with open("notes", "a") as file:
        file.write(f"{text} {os.getpid()}\\n")


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        try:
            while os.path.exists("wait"):
                await asyncio.sleep(0.01)  # in the app
        finally:
            note("startup")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        note("shutdown")
        await send({"type": "lifespan.shutdown.complete"})
        return
    await asyncio.sleep(float(scope["query_string"] or 0))  # in the app
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
    if scope["path"] == "/work":
        await asyncio.sleep(1)  # in the app
    note("request")
"""


@pytest.fixture
def noting(project: Path) -> Path:
    (project / "main.py").write_text(NOTING)
    return project


def notes(directory: Path) -> list[tuple[str, int]]:
    path = directory / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(line.split()[0], int(line.split()[1])) for line in lines]


@both
def test_the_application_shuts_down_after_its_last_response(noting: Path, mode: list[str]) -> None:
    args = ["--workers", "1"] if mode else []
    with Ostler(noting, "main:app", "--port", "0", *args) as ostler:
        with slow_request(ostler.port, 2) as client:
            ostler.send(signal.SIGTERM)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert ostler.wait() == 0
    assert [event for event, _ in notes(noting)] == ["startup", "request", "shutdown"]


def test_every_worker_runs_the_lifespan_once(noting: Path) -> None:
    with serving(noting, "--workers", "3") as ostler:
        first = notes(noting)
        assert [event for event, _ in first] == ["startup"] * 3
        assert {pid for _, pid in first} == set(ostler.workers())
        ostler.send(signal.SIGHUP)
        ostler.wait_ready(6)
        wait_until(lambda: len(notes(noting)) == 9, "the old workers have shut down")
        started = [pid for event, pid in notes(noting) if event == "startup"]
        assert len(set(started)) == 6
        assert {pid for event, pid in notes(noting) if event == "shutdown"} == {pid for _, pid in first}
        assert ostler.stop() == 0
    assert {pid for event, pid in notes(noting) if event == "shutdown"} == set(started)


@both
def test_a_request_during_startup_is_answered_after_it(noting: Path, mode: list[str]) -> None:
    (noting / "wait").touch()
    with (
        Ostler(noting, "main:app", "--port", "0", *mode) as ostler,
        open_get(ostler.port) as client,
    ):
        ostler.log.wait_for("Waiting for application startup.")
        assert notes(noting) == []
        (noting / "wait").unlink()
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")


@both
def test_a_stop_during_startup_cancels_it(noting: Path, mode: list[str]) -> None:
    args = ["--workers", "1"] if mode else []
    (noting / "wait").touch()
    with Ostler(noting, "main:app", "--port", "0", *args) as ostler:
        ostler.log.wait_for("Waiting for application startup.")
        assert ostler.stop() == 0
        assert "Traceback" not in ostler.log.text
    assert [event for event, _ in notes(noting)] == ["startup"], "only the `finally` of the startup ran"


@both
@pytest.mark.parametrize("forced_by", [signal.SIGINT, signal.SIGQUIT])
def test_a_forced_end_sends_no_shutdown_to_the_application(
    noting: Path, mode: list[str], forced_by: signal.Signals
) -> None:
    args = ["--workers", "1"] if mode else []
    with Ostler(noting, "main:app", "--port", "0", *args) as ostler:
        with slow_request(ostler.port, 60):
            ostler.family()
            ostler.send(signal.SIGINT)
            ostler.log.wait_for(r"INFO: +Waiting for connections to close\. \(CTRL\+C to force quit\)$")
            ostler.send(forced_by)
            assert ostler.wait() == 0
        ostler.wait_gone()
    assert "shutdown" not in [event for event, _ in notes(noting)]


@both
def test_a_stop_that_waits_for_work_after_a_response_logs_it(noting: Path, mode: list[str]) -> None:
    args = ["--workers", "1"] if mode else []
    with Ostler(noting, "main:app", "--port", "0", *args) as ostler:
        assert get(ostler.port, "/work").status_code == 200
        assert ostler.stop() == 0
    assert ostler.log.text.count("Waiting for background tasks to complete. (CTRL+C to force quit)\n") == 1
    assert "connections to close" not in ostler.log.text
    assert [event for event, _ in notes(noting)] == ["startup", "request", "shutdown"]


@both
def test_a_stop_that_has_nothing_to_wait_for_logs_no_wait(noting: Path, mode: list[str]) -> None:
    with Ostler(noting, "main:app", "--port", "0", *mode) as ostler:
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0
    assert "to close" not in ostler.log.text
    assert "to complete" not in ostler.log.text


def test_a_worker_that_drains_in_a_roll_logs_no_hint_at_ctrl_c(noting: Path) -> None:
    with Ostler(noting, "main:app", "--port", "0", "--workers", "1") as ostler:
        with slow_request(ostler.port, 2) as client:
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for(r"INFO: +Waiting for connections to close\.$")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert ostler.stop() == 0
    assert "CTRL+C to force" not in ostler.log.text


LITTERING = """
import asyncio
import time

kept = []


async def background():
    try:
        await asyncio.Event().wait()
    finally:
        print("task cancelled", flush=True)


async def numbers():
    try:
        yield 1
        yield 2
    finally:
        print("generator closed", flush=True)


def job():
    time.sleep(1)  # in the app
    print("job done", flush=True)


async def app(scope, receive, send):
    generator = numbers()
    await generator.__anext__()
    kept[:] = [generator, asyncio.ensure_future(background())]
    asyncio.get_running_loop().run_in_executor(None, job)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
"""


@both
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_tasks_generators_and_executor_jobs_are_finished_when_the_loop_closes(
    project: Path, mode: list[str], loop: str
) -> None:
    (project / "main.py").write_text(LITTERING)
    args = ["--workers", "1"] if mode else []
    with Ostler(project, "main:app", "--port", "0", "--lifespan", "off", "--loop", loop, *args) as ostler:
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0
    for line in ("task cancelled", "generator closed", "job done"):
        assert line in ostler.out.text.splitlines()
    assert "Traceback" not in ostler.log.text
