"""Start, request and stop `ostler main:app` and `ostler main:app --workers 2`."""

import json
import re
import signal
import socket
import stat
import sys
from pathlib import Path

import httpx
import pytest

from tests.live.clients import get, open_get, read_to_end, send_get, slow_request
from tests.live.harness import Ostler, both, serving, wait_until


@both
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_are_answered_and_a_signal_ends_the_server_with_exit_code_0(
    project: Path, mode: list[str], number: signal.Signals
) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        assert get(ostler.port).text.startswith("one ")
        ostler.out.wait_for(r'INFO: +127.0.0.1:\d+ - "GET / HTTP/1.1" 200 OK')
        assert ostler.stop(number) == 0
    assert "Traceback" not in ostler.log.text
    assert "Application shutdown complete." in ostler.log.text
    assert re.search(r"INFO: +Finished server process \[\d+\]", ostler.log.text)


def test_every_worker_has_its_slot_in_its_environment_and_in_its_process_title(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        assert sorted(ostler.workers().values()) == [1, 2]
        _, pid, slot = get(ostler.port).text.split()
        assert ostler.workers()[int(pid)] == int(slot)


def test_a_worker_is_reached_through_every_host(project: Path) -> None:
    hosts = ["--host", "127.0.0.1", "--host", "::1"]
    with Ostler(project, "main:app", "--port", "0", "--workers", "1", *hosts) as ostler:
        port = ostler.port
        ostler.log.wait_for(rf"running on http://\[::1\]:{port} ")
        assert get(port).status_code == 200
        assert httpx.get(f"http://[::1]:{port}/", trust_env=False).status_code == 200


@both
def test_a_unix_socket_is_served_and_removed_at_the_end(project: Path, mode: list[str]) -> None:
    path = project / "app.sock"
    with Ostler(project, "main:app", "--uds", str(path), *mode) as ostler:
        ostler.log.wait_for(r"running on unix socket")
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://test/server").text == f"{path} None"
        assert ostler.stop() == 0
    assert f"running on unix socket {path} (" in ostler.log.text
    assert not path.exists()


@both
@pytest.mark.parametrize("as_stdin", [True, False], ids=["fd 0", "another fd"])
def test_an_inherited_descriptor_is_served(project: Path, mode: list[str], as_stdin: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = 0 if as_stdin else listener.fileno()
        more = {"stdin": listener} if as_stdin else {"pass_fds": [listener.fileno()]}
        with Ostler(project, "main:app", "--fd", str(number), *mode, **more) as ostler:
            port = listener.getsockname()[1]
            assert ostler.port == port
            assert get(port).status_code == 200
            assert ostler.stop() == 0


@both
def test_a_busy_port_gives_one_line_of_error_and_exit_code_4(project: Path, mode: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with Ostler(project, "main:app", "--port", str(port), *mode) as ostler:
            assert ostler.wait() == 4
    assert len(ostler.log.text.splitlines()) == 1
    assert f"127.0.0.1:{port}" in ostler.log.text


@both
@pytest.mark.parametrize(
    ("app", "message"),
    [("nowhere:app", 'Could not import module "nowhere"'), ("main:nothing", 'Attribute "nothing" not found')],
)
def test_a_missing_app_is_named_on_the_last_line_with_exit_code_3(
    project: Path, mode: list[str], app: str, message: str
) -> None:
    with Ostler(project, app, "--port", "0", *mode) as ostler:
        assert ostler.wait() == 3
        ostler.wait_gone()
    assert "Traceback" not in ostler.log.text
    assert message in ostler.log.text.splitlines()[-1]


@both
def test_an_app_that_raises_at_import_is_reported_with_file_and_line_and_exit_code_3(
    project: Path, mode: list[str]
) -> None:
    (project / "main.py").write_text("x = 1\nraise RuntimeError('no database')\n")
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        assert ostler.wait() == 3
    last = ostler.log.text.splitlines()[-1]
    assert "RuntimeError: no database" in last
    assert "main.py, line 2" in last
    # The traceback has only the application's frames, none of ostler's.
    assert "Traceback" in ostler.log.text
    assert "/ostler/" not in ostler.log.text.rpartition("Traceback")[2].rpartition("could not be")[0]


@both
def test_an_app_whose_lifespan_startup_fails_ends_the_server_with_exit_code_3(
    project: Path, mode: list[str]
) -> None:
    (project / "main.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        assert ostler.wait() == 3
    assert "no database" in ostler.log.text.splitlines()[-1]


@both
def test_sigint_lets_requests_finish_and_a_second_sigint_does_not(project: Path, mode: list[str]) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler:
        with slow_request(ostler.port, 60) as client:
            ostler.family()
            ostler.send(signal.SIGINT)
            ostler.log.wait_for("Shutting down")
            assert ostler.poll() is None
            ostler.send(signal.SIGINT)
            assert ostler.wait() == 0
            assert client.recv(1000) == b""
        ostler.wait_gone()


@both
def test_sigquit_ends_the_server_at_once(project: Path, mode: list[str]) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler, slow_request(ostler.port, 60):
        assert ostler.stop(signal.SIGQUIT) == 0


@both
def test_sigterm_lets_a_request_in_flight_finish(project: Path, mode: list[str]) -> None:
    with Ostler(project, "main:app", "--port", "0", *mode) as ostler, slow_request(ostler.port, 2) as client:
        ostler.send(signal.SIGTERM)
        answer = read_to_end(client)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"\r\nconnection: close\r\n" in answer.lower()
        assert ostler.wait() == 0


@both
def test_a_request_that_outlasts_the_graceful_timeout_is_cancelled_and_counted(
    project: Path, mode: list[str]
) -> None:
    grace = ["--timeout-graceful-shutdown", "1"]
    with Ostler(project, "main:app", "--port", "0", *grace, *mode) as ostler:
        with slow_request(ostler.port, 60):
            ostler.send(signal.SIGTERM)
            assert ostler.wait() == 0
        ostler.log.wait_for(r"Cancel 1 running request\(s\), timeout graceful shutdown exceeded")


def test_a_plain_server_stops_after_its_maximum_of_requests(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--limit-max-requests", "3") as ostler:
        port = ostler.port
        for _ in range(3):
            assert get(port).status_code == 200
        assert ostler.wait() == 0
        ostler.log.wait_for("Maximum request limit of 3 exceeded. Terminating process.")


def test_a_plain_server_says_that_a_rolling_restart_needs_workers(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0") as ostler:
        port = ostler.port
        assert get(port).status_code == 200
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("SIGHUP ignored: .* need --workers")
        assert get(port).status_code == 200


@both
def test_connections_in_the_accept_queue_at_sigterm_are_answered(project: Path, mode: list[str]) -> None:
    """The kernel had accepted these connections before the signal; the worker had not."""
    args = ["--workers", "1"] if mode else []
    with Ostler(project, "main:app", "--port", "0", *args) as ostler:
        port = ostler.port
        assert get(port).status_code == 200
        with open_get(port, "/block?2"):
            wait_until(lambda: not answers(port, 0.3), "the event loop is blocked")
            waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
            ostler.send(signal.SIGTERM)
            for client in waiting:
                send_get(client)
            for client in waiting:
                with client:
                    client.settimeout(30)
                    assert client.recv(1000).startswith(b"HTTP/1.1 200 OK")
        assert ostler.wait() == 0


def test_the_arbiter_imports_neither_the_application_nor_what_only_workers_need(project: Path) -> None:
    probe = (
        "import sys, atexit, json; sys.argv = ['ostler', 'main:app', '--workers', '1', '--port', '0'];"
        "atexit.register(lambda: print(json.dumps(sorted(sys.modules))));"
        "from ostler.cli.main import main; main()"
    )
    with Ostler(project, program=["-c", probe]) as ostler:
        ostler.wait_ready(1)
        ostler.send(signal.SIGHUP)
        ostler.wait_ready(2)
        assert ostler.stop() == 0
    modules = set(json.loads(ostler.out.text.splitlines()[-1]))
    loaded = {name.partition(".")[0] for name in modules}
    assert "ostler" in loaded
    assert not loaded & {"main", "uvloop", "httptools", "h11", "websockets", "watchfiles", "psutil"}
    assert not [name for name in modules if name.startswith("ostler.worker")]
    # Nothing of a feature that is off is loaded. pathlib alone takes 1 MB (Python 3.11).
    unused = {"ostler.supervisor.reload.reloader", "pathlib", "configparser", "logging.config"}
    if sys.version_info >= (3, 15):
        unused.remove("pathlib")  # logging's own: it imports traceback, which imports pathlib
    assert not modules & unused


def answers(port: int, timeout: float) -> bool:
    try:
        get(port, timeout=timeout)
    except httpx.TimeoutException:
        return False
    return True


BACKGROUND = """
import asyncio


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
    await asyncio.sleep(1.5)  # in the app
    print("background work done", flush=True)
"""


@both
def test_work_after_a_response_is_finished_before_the_server_ends(project: Path, mode: list[str]) -> None:
    (project / "main.py").write_text(BACKGROUND)
    with Ostler(project, "main:app", "--port", "0", "--lifespan", "off", *mode) as ostler:
        assert get(ostler.port).status_code == 200
        assert ostler.stop() == 0
    assert "background work done" in ostler.out.text
