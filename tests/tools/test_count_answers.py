"""`tools/count_answers.py` counts answers and failures until it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import ostler
from ostler.worker.asgi import Receive, Scope, Send
from tests.live.harness import PATIENCE

SCRIPT = Path(__file__).parents[2] / "tools" / "count_answers.py"
ENOUGH = 200


class App:
    """Answers with `status`, and says when it has had enough requests."""

    def __init__(self, status: int) -> None:
        self.enough = threading.Event()
        self._status = status
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("only HTTP")
        self._count += 1
        if self._count >= ENOUGH:
            self.enough.set()
        headers = [(b"content-length", b"5")]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
def app(request: pytest.FixtureRequest) -> App:
    return App(request.param)


@pytest.fixture
def url(app: App) -> Iterator[str]:
    server = ostler.Server(ostler.Config(app, port=0, access_log=False), configure_logging=False)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        assert server.started.wait(PATIENCE)
        yield f"http://127.0.0.1:{server.port}/"
    finally:
        server.stop_now()
        thread.join(PATIENCE)


def count(url: str, app: App) -> tuple[int, str]:
    """Run the script until the application has had enough; return its exit code and what it has printed."""
    process = subprocess.Popen([sys.executable, str(SCRIPT), url], stdout=subprocess.PIPE, text=True)
    try:
        assert app.enough.wait(PATIENCE)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out


@pytest.mark.parametrize("app", [200], indirect=True)
def test_answers_are_counted_by_their_body(url: str, app: App) -> None:
    code, out = count(url, app)

    total = out.split()[0]
    assert out == f"{total} requests: {total} answered by 'hello', 0 failed\n"
    assert int(total.replace(",", "")) >= ENOUGH
    assert code == 0


@pytest.mark.parametrize("app", [500], indirect=True)
def test_another_status_is_a_failure_with_its_cause(url: str, app: App) -> None:
    code, out = count(url, app)

    assert out.startswith(f"{out.split()[0]} requests: none answered, {out.split()[0]} failed\n")
    assert "ValueError: http/1.1 500 internal server error" in out
    assert code == 1
