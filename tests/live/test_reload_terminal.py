"""--reload in a terminal: breakpoint() prompts there, and Ctrl+C always ends ostler."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.live.clients import open_get, read_to_end
from tests.live.harness import APP, elapsed, wait_until
from tests.live.terminal import Terminal

DEBUGGED = APP.replace(
    '    if scope["path"] == "/slow":',
    """    if scope["path"] == "/break":
        breakpoint()
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"more ", "more_body": True})
            await asyncio.sleep(0.05)  # in the app
    if scope["path"] == "/slow":""",
)

SWALLOWS = """
import signal

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGURG):
    signal.signal(number, lambda *_: None)
"""

SPAWNS = """
import subprocess

subprocess.Popen(["sleep", "1000"])
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(DEBUGGED)
    return tmp_path


def answer(client: socket.socket) -> bytes:
    """Return the whole response, and close the connection."""
    with client:
        return read_to_end(client)


def reloading(project: Path, *args: str) -> Terminal:
    """Start `ostler main:app --reload ARGS` in a terminal."""
    return Terminal(project, "main:app", "--port", "0", "--reload", *args)


def test_breakpoint_prompts_at_the_terminal_and_the_request_is_answered(project: Path) -> None:
    with reloading(project, "--timeout-worker-healthcheck", "1") as terminal:
        terminal.wait_for("is ready")
        client = open_get(terminal.port, "/break", close=True)
        terminal.wait_for(r"\(Pdb\) ")
        asked = time.monotonic()
        terminal.type("p 6 * 7\n")
        terminal.wait_for(r"^42\s*$")
        wait_until(lambda: elapsed(asked) > 2.5, "more than twice the time-out of the healthcheck has passed")
        terminal.type("c\n")
        assert answer(client).startswith(b"HTTP/1.1 200 OK")
        assert terminal.interrupt() == 0
        assert "silent for" not in terminal.text
        assert "Traceback" not in terminal.text
        assert terminal.modes_now() == terminal.modes


def test_a_change_while_the_debugger_prompts_causes_a_reload(project: Path) -> None:
    with reloading(project) as terminal:
        terminal.wait_for("is ready")
        port = terminal.port
        client = open_get(port, "/break", close=True)
        terminal.wait_for(r"\(Pdb\) ")
        (project / "main.py").write_text(DEBUGGED.replace('"one"', '"second"'))
        terminal.wait_for(r"(?:WatchFiles|StatReload) detected changes in 'main.py'. Reloading...")
        assert b"\r\n\r\nsecond " in answer(open_get(port, close=True))
        client.close()
        again = open_get(port, "/break", close=True)
        terminal.wait_for(r"\(Pdb\) ", 2)
        terminal.type("p 6 * 7\n")
        terminal.wait_for(r"^42\s*$")
        assert terminal.interrupt() == 0
        again.close()
        assert terminal.modes_now() == terminal.modes
        assert "Traceback" not in terminal.text


@pytest.mark.parametrize("path", ["/", "/break", "/block?1000", "/slow?1000", "/stream"])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_ends_ostler_at_once_whatever_a_worker_does(project: Path, path: str, workers: str) -> None:
    with reloading(project, "--workers", workers) as terminal:
        terminal.wait_for(r"Worker \d \(pid \d+\) is ready", int(workers))
        client = open_get(terminal.port, path, close=True)
        if path == "/break":
            terminal.wait_for(r"\(Pdb\) ")
        elif path in ("/", "/stream"):
            assert client.recv(10)
        pressed = time.monotonic()
        assert terminal.interrupt() == 0
        assert elapsed(pressed) < 10
        client.close()
        assert "Traceback" not in terminal.text
        assert terminal.modes_now() == terminal.modes


@pytest.mark.parametrize(
    "code", [SWALLOWS, "import time\ntime.sleep(1000)  # in the app\n", "def broken(:\n"]
)
def test_ctrl_c_ends_ostler_at_once_whatever_the_new_code_does(project: Path, code: str) -> None:
    with reloading(project) as terminal:
        terminal.wait_for("is ready")
        (project / "main.py").write_text(DEBUGGED + code)
        terminal.wait_for("Reloading...")
        if code == SWALLOWS:
            terminal.wait_for("is ready", 2)
        elif "broken" in code:
            terminal.wait_for("waiting for a change")
        pressed = time.monotonic()
        assert terminal.interrupt() == 0
        assert elapsed(pressed) < 10
        assert "Traceback" not in terminal.text
        assert terminal.text.count("The application could not be imported:") == ("broken" in code)


def test_processes_that_a_worker_has_spawned_end_with_it(project: Path) -> None:
    (project / "main.py").write_text(DEBUGGED + SPAWNS)
    with reloading(project) as terminal:
        terminal.wait_for("is ready")
        [sleeper] = [p for p in terminal.family() if p.name() == "sleep"]
        (project / "main.py").write_text(DEBUGGED)
        terminal.wait_for("is ready", 2)
        assert not sleeper.is_running() or sleeper.status() == "zombie"
        assert terminal.interrupt() == 0
