"""gunicorn's access log, formats, logger classes and statsd with ostler's worker classes."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import httpx
import pytest

from tests.hosting.gunicorn import H11_WORKER, WORKER, Gunicorn
from tests.live.clients import get, open_get
from tests.live.harness import PATIENCE, wait_until

APP = """
import asyncio


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError("none")
    path = scope["path"]
    if path == "/fails":
        raise RuntimeError("it fails")
    if path == "/gone":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if path == "/never":
        await asyncio.sleep(600)  # in the app
    status = 204 if path == "/empty" else 200
    await send({"type": "http.response.start", "status": status, "headers": [(b"X-Colour", b"red")]})
    for more in (True, False):
        await send({"type": "http.response.body", "body": b"half.", "more_body": more})
    if path == "/background":
        await asyncio.sleep(600)  # in the app
"""

FORMAT = (
    "%(h)s|%(l)s|%(u)s|%(r)s|%(m)s|%(U)s|%(q)s|%(H)s|%(s)s|%(b)s|%(f)s|%(a)s|%(T)s"
    "|%({x-colour}o)s|%({x-in}i)s"
)
HEADERS = {"User-Agent": 'me "and" I', "Referer": "http://from", "X-In": "seen", "Accept": "*/*"}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


def wait_for_url(gunicorn: Gunicorn) -> str:
    """Wait until gunicorn serves, and return its base URL."""
    gunicorn.log.wait_for("Application startup complete")
    return f"http://127.0.0.1:{gunicorn.port}"


@pytest.mark.parametrize("worker", [WORKER, H11_WORKER])
def test_every_atom_of_the_format_has_its_value(project: Path, worker: str) -> None:
    options = ("--access-logfile", "-", "--access-logformat", FORMAT)
    with Gunicorn(project, *options, worker=worker) as gunicorn:
        url = wait_for_url(gunicorn)
        with httpx.Client(auth=("ann", "secret"), headers=HEADERS, trust_env=False) as client:
            client.get(url + "/a%20b?c=d")
            client.head(url + "/head")
            client.get(url + "/empty")
            client.get(url + "/line%0Afeed")
            assert client.get(url + "/fails").status_code == 500
        gunicorn.out.wait_for(r"\|/fails\|")
        assert gunicorn.stop() == 0
    rest = r"|http://from|me \"and\" I|0|red|seen"
    assert gunicorn.out.text.splitlines() == [
        "127.0.0.1|-|ann|GET /a%20b?c=d HTTP/1.1|GET|/a b|c=d|HTTP/1.1|200|10" + rest,
        "127.0.0.1|-|ann|HEAD /head HTTP/1.1|HEAD|/head||HTTP/1.1|200|0" + rest,
        "127.0.0.1|-|ann|GET /empty HTTP/1.1|GET|/empty||HTTP/1.1|204|0" + rest,
        "127.0.0.1|-|ann|GET /line%0Afeed HTTP/1.1|GET|/line%0Afeed||HTTP/1.1|200|10" + rest,
        "127.0.0.1|-|ann|GET /fails HTTP/1.1|GET|/fails||HTTP/1.1|500|0" + rest.replace("red", "-"),
    ]


def test_without_access_logging_nothing_is_logged(project: Path) -> None:
    with Gunicorn(project) as gunicorn:
        assert httpx.get(wait_for_url(gunicorn), trust_env=False).text == "half.half."
        assert gunicorn.stop() == 0
    assert gunicorn.out.text == ""


def test_a_response_is_logged_when_it_is_sent_though_the_application_still_runs(project: Path) -> None:
    with Gunicorn(project, "--access-logfile", "-", "--graceful-timeout", "2") as gunicorn:
        url = wait_for_url(gunicorn)
        httpx.get(url + "/background", trust_env=False)
        gunicorn.out.wait_for(
            r'^127\.0\.0\.1 - - \[.+\] "GET /background HTTP/1\.1" 200 10 "-" "python-httpx/'
        )
        assert gunicorn.stop() == 0
    assert gunicorn.out.text.count("/background") == 1


def test_a_client_that_left_before_the_answer_is_logged_as_499_and_a_cancelled_request_as_503(
    project: Path,
) -> None:
    options = ("--access-logfile", "-", "--access-logformat", "%(U)s %(s)s", "--graceful-timeout", "2")
    with Gunicorn(project, *options) as gunicorn:
        wait_for_url(gunicorn)
        open_get(gunicorn.port, "/gone").close()
        gunicorn.out.wait_for("^/gone 499$")
        with open_get(gunicorn.port, "/never"):
            assert gunicorn.stop() == 0
    gunicorn.out.wait_for("^/never 503$")


def test_a_request_above_the_limit_of_concurrency_is_logged(project: Path) -> None:
    env = {"OSTLER_LIMIT_CONCURRENCY": "1"}
    options = ("--access-logfile", "-", "--graceful-timeout", "1")
    with Gunicorn(project, *options, env=env) as gunicorn:
        wait_for_url(gunicorn)
        with open_get(gunicorn.port, "/never"):
            # The first of these may come before the one that never ends.
            wait_until(lambda: get(gunicorn.port, "/more").status_code == 503, "a request is refused")
            gunicorn.out.wait_for('"GET /more HTTP/1.1" 503 19 ')
            assert gunicorn.stop() == 0


def test_usr1_reopens_the_files_of_both_logs(project: Path) -> None:
    access, error = project / "access.log", project / "error.log"
    with Gunicorn(project, "--access-logfile", str(access), "--error-logfile", str(error)) as gunicorn:
        wait_until(
            lambda: error.exists() and "startup complete" in error.read_text(), "the application has started"
        )
        port = int(re.findall(r"http://127.0.0.1:(\d+)", error.read_text())[0])
        get(port, "/before")
        wait_until(lambda: "/before" in access.read_text(), "the request is logged")
        access.rename(project / "access.old")
        error.rename(project / "error.old")
        gunicorn.send(signal.SIGUSR1)
        wait_until(access.exists, "the file exists again")

        def in_new_file() -> bool:
            get(port, "/after")
            return "/after" in access.read_text()

        wait_until(in_new_file, "the worker writes to it")
        assert gunicorn.stop() == 0
    assert "Finished server process" in error.read_text()  # ostler's own lines
    assert "/before" not in access.read_text()


def test_statsd_counts_requests_without_an_access_log(project: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(PATIENCE)
        with Gunicorn(project, "--statsd-host", f"127.0.0.1:{statsd.getsockname()[1]}") as gunicorn:
            httpx.get(wait_for_url(gunicorn), trust_env=False)
            while not statsd.recv(1024).startswith(b"gunicorn.request.status.200:1|c"):
                pass
            assert gunicorn.stop() == 0


def test_an_exception_of_a_logger_class_is_logged_and_the_request_is_answered(project: Path) -> None:
    (project / "own.py").write_text(
        "from gunicorn.glogging import Logger\n\n\nclass Own(Logger):\n"
        "    def access(self, resp, req, environ, request_time):\n"
        "        raise RuntimeError(f'{req.method} {req.path} took {request_time}')\n"
    )
    with Gunicorn(project, "--logger-class", "own.Own") as gunicorn:
        url = wait_for_url(gunicorn)
        with httpx.Client(trust_env=False) as client:
            assert client.get(url).text == client.get(url).text == "half.half."
        gunicorn.log.wait_for("RuntimeError: GET / took 0:00:0")
        assert gunicorn.stop() == 0
