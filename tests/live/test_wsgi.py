"""Flask and Django as WSGI applications: uploads, streams, sessions, and a stop while a thread hangs."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.live.harness import Ostler, elapsed, serving, wait_until

FLASK = """
import hashlib
import os
from flask import Flask, Response, request, send_file, session

def create_app():
    app = Flask(__name__)
    app.secret_key = "test"

    @app.post("/upload")
    def upload():
        file = request.files["file"]
        return {"name": file.filename, "sha": hashlib.sha256(file.stream.read()).hexdigest()}

    @app.post("/raw")
    def raw():
        return str(len(request.get_data()))

    @app.get("/stream")
    def stream():
        return Response((f"{number}\\n" * 1000 for number in range(50)), mimetype="text/plain")

    @app.get("/count")
    def count():
        session["count"] = session.get("count", 0) + 1
        return {"count": session["count"], "root": request.script_root, "scheme": request.scheme}

    @app.get("/file")
    def file():
        return send_file(os.path.abspath(__file__), mimetype="text/plain")

    @app.get("/broken")
    def broken():
        raise KeyError("broken")

    return app

app = create_app()
"""

DJANGO = """
import hashlib
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

settings.configure(
    SECRET_KEY="test", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], DEBUG=False,
    INSTALLED_APPS=["django.contrib.sessions"],
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
)

@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    sha = hashlib.sha256()
    for chunk in file.chunks():
        sha.update(chunk)
    return JsonResponse({"name": file.name, "sha": sha.hexdigest()})

def stream(request):
    parts = (f"{number}\\n" * 1000 for number in range(50))
    return StreamingHttpResponse(parts, content_type="text/plain")

def count(request):
    request.session["count"] = request.session.get("count", 0) + 1
    found = {"count": request.session["count"], "root": request.META["SCRIPT_NAME"], "scheme": request.scheme}
    return JsonResponse(found)

urlpatterns = [path("upload", upload), path("stream", stream), path("count", count)]
app = get_wsgi_application()
"""

HANGING = """
import threading

def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/hang":
        hang_for_good()
    if environ["PATH_INFO"] == "/slow":
        threading.Event().wait(1)
    return [b"done"]

def hang_for_good():
    threading.Event().wait()
"""

# The frameworks emit warnings of their own, which the tests must not turn into errors.
WARNINGS_ALLOWED = {"PYTHONWARNINGS": "default"}


@pytest.fixture(params=[FLASK, DJANGO], ids=["flask", "django"])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[httpx.Client]:
    (tmp_path / "main.py").write_text(request.param)
    options = ("--workers", "2", "--root-path", "/below")
    with serving(tmp_path, *options, env=WARNINGS_ALLOWED) as ostler:
        with httpx.Client(base_url=f"http://127.0.0.1:{ostler.port}", trust_env=False) as client:
            yield client
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def test_a_framework_takes_uploads_streams_and_keeps_sessions(served: httpx.Client) -> None:
    content = bytes(range(256)) * 80_000  # 20 MB
    answer = served.post("/upload", files={"file": ("a.bin", content)}, timeout=60)
    assert answer.json() == {"name": "a.bin", "sha": hashlib.sha256(content).hexdigest()}
    with served.stream("GET", "/stream") as response:
        assert response.headers["transfer-encoding"] == "chunked"
        assert "".join(response.iter_text()) == "".join(f"{number}\n" * 1000 for number in range(50))
    for expected in (1, 2, 3):
        forwarded = {"X-Forwarded-Proto": "https", "Host": "a.example"}
        found = served.get("/count", headers=forwarded).json()
        assert found == {"count": expected, "root": "/below", "scheme": "https"}
    assert served.head("/stream").status_code == 200
    assert served.get("/nowhere").status_code == 404


@pytest.mark.parametrize(
    "arguments", [("main:app",), ("main:create_app", "--factory"), ("main:create_app",)], ids=" ".join
)
def test_flask_is_served_by_a_plain_server_and_from_a_factory(tmp_path: Path, arguments: tuple[str]) -> None:
    (tmp_path / "main.py").write_text(FLASK)
    with Ostler(tmp_path, *arguments, "--port", "0", env=WARNINGS_ALLOWED) as ostler:
        with httpx.Client(base_url=f"http://127.0.0.1:{ostler.port}", trust_env=False) as client:
            ostler.log.wait_for("is a WSGI application, served by up to")
            chunked = (b"x" * 10_000 for _ in range(100))
            assert client.post("/raw", content=chunked).text == "1000000"
            assert client.get("/file").text == FLASK
            assert client.get("/broken").status_code == 500
            # Flask's own logger writes to wsgi.errors.
            ostler.log.wait_for("KeyError: 'broken'")
        assert ostler.stop() == 0
    assert "unsupported" not in ostler.log.text
    assert ("say so with --factory" in ostler.log.text) == (arguments == ("main:create_app",))


def test_lifespan_on_with_wsgi_is_a_failed_start_with_one_line_of_error(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(HANGING)
    for workers in ((), ("--workers", "2")):
        with Ostler(tmp_path, "main:app", "--port", "0", "--lifespan", "on", *workers) as ostler:
            assert ostler.wait() == 3
        assert "omit --lifespan on" in ostler.log.text.splitlines()[-1]
        assert "Traceback" not in ostler.log.text


@pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["plain", "arbiter"])
def test_a_stop_ends_though_a_thread_hangs(tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "main.py").write_text(HANGING)
    args = ("main:app", "--port", "0", "--timeout-graceful-shutdown", "1", *workers)
    with Ostler(tmp_path, *args) as ostler:
        url = f"http://127.0.0.1:{ostler.port}"
        assert httpx.get(url, trust_env=False).text == "done"
        status: list[int] = []
        hanging = threading.Thread(
            target=lambda: status.append(httpx.get(f"{url}/hang", trust_env=False, timeout=60).status_code)
        )
        hanging.start()
        wait_for_hang(ostler, supervised=bool(workers))
        begun = time.monotonic()
        assert ostler.stop() == 0
        # The graceful timeout, and the three seconds that a process has after it.
        assert elapsed(begun) < 1 + 3
        hanging.join()
    assert status == [503]
    assert re.search(r'"GET /hang" still runs in a thread(.|\n)*in hang_for_good', ostler.log.text)
    assert "Cancel 1 running request(s)" in ostler.log.text


def wait_for_hang(ostler: Ostler, *, supervised: bool) -> None:
    """Wait until a thread of the server hangs in the application, by the stacks that SIGUSR2 logs."""
    asked = -60.0

    def hangs() -> bool:
        nonlocal asked
        # The stacks are logged once they are complete: not before the next request for them, if that is soon.
        if time.monotonic() - asked > 1:
            asked = time.monotonic()
            # A plain server is not among `workers`. To an arbiter, SIGUSR2 would be the signal to upgrade.
            for pid in ostler.workers() if supervised else [ostler.pid]:
                psutil.Process(pid).send_signal(signal.SIGUSR2)
        return "hang_for_good" in ostler.log.text

    wait_until(hangs, "the application hangs")


def test_draining_waits_for_a_thread_in_flight(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(HANGING)
    with serving(tmp_path, "--workers", "1") as ostler:
        url = f"http://127.0.0.1:{ostler.port}"
        bodies: list[str] = []
        with httpx.Client(base_url=url, trust_env=False) as client:
            assert client.get("/").text == "done"
        slow = threading.Thread(target=lambda: bodies.append(httpx.get(f"{url}/slow", trust_env=False).text))
        slow.start()
        wait_for_connection(ostler)
        assert ostler.stop() == 0
        slow.join()
    assert bodies == ["done"]


def wait_for_connection(ostler: Ostler) -> None:
    """Wait until the worker has accepted a connection; an accepted connection is served."""
    (pid,) = ostler.workers()
    wait_until(
        lambda: [c for c in psutil.Process(pid).net_connections() if c.status == "ESTABLISHED"],
        "a connection is accepted",
    )
