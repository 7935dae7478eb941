"""ostler's worker classes under a real gunicorn: signals, time-outs, hooks, sockets, TLS, exit codes."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import threading
from pathlib import Path

import httpx
import psutil
import pytest
import trustme

from tests.hosting.gunicorn import H11_WORKER, WORKER, Gunicorn
from tests.live.clients import get, read_to_end, send_get
from tests.live.harness import APP, PATIENCE, app_version, free_ports, wait_until
from tests.live.load import Load

both = pytest.mark.parametrize("worker", [WORKER, H11_WORKER])

APP_OF_LIBRARIES = """
import asyncio
import sys

FOUND = asyncio.get_event_loop()


async def app(scope, receive, send):
    loop = asyncio.get_running_loop()
    parsers = sorted({"httptools", "h11"} & set(sys.modules))
    body = f"{type(loop).__module__.split('.')[0]} {parsers} {loop is FOUND}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(APP)
    return tmp_path


class BackgroundRequest:
    """A GET request that a thread sends, while the test goes on."""

    def __init__(self, port: int, path: str) -> None:
        self.outcome: httpx.Response | httpx.HTTPError | None = None
        self._thread = threading.Thread(target=self._run, args=(port, path), daemon=True)
        self._thread.start()

    def _run(self, port: int, path: str) -> None:
        try:
            self.outcome = get(port, path)
        except httpx.HTTPError as exc:
            self.outcome = exc

    def result(self) -> httpx.Response | httpx.HTTPError:
        self._thread.join(PATIENCE)
        assert self.outcome is not None
        return self.outcome

    def text(self) -> str:
        response = self.result()
        assert isinstance(response, httpx.Response), response
        return response.text


# -- serving


@both
def test_hup_five_times_under_load_loses_no_request(project: Path, worker: str) -> None:
    with Gunicorn(project, "-w", "2", worker=worker) as gunicorn:
        gunicorn.wait_started(2)
        with Load(gunicorn.port) as load:
            for number in range(5):
                (project / "main.py").write_text(app_version(f"number{'x' * number}"))
                gunicorn.reload(2)
            load.bodies.clear()
            load.wait_answers(100)
            assert set(load.bodies) == {"numberxxxx"}
        assert gunicorn.stop() == 0
    assert load.failures == {}
    assert "Traceback" not in gunicorn.log.text
    assert "SIGKILL" not in gunicorn.log.text


def test_ttin_and_ttou_change_the_number_of_workers_without_a_lost_request(project: Path) -> None:
    with Gunicorn(project, "-w", "1") as gunicorn:
        gunicorn.wait_started(1)
        with Load(gunicorn.port) as load:
            for count in (2, 3):
                gunicorn.send(signal.SIGTTIN)
                gunicorn.wait_started(count)
            load.wait_answers(100)
            for count in (2, 1):
                gunicorn.send(signal.SIGTTOU)
                gunicorn.wait_count(count)
            load.wait_answers(100)
        assert gunicorn.stop() == 0
    assert load.failures == {}


@both
def test_term_lets_the_request_in_flight_finish_and_the_application_shut_down(
    project: Path, worker: str
) -> None:
    with Gunicorn(project, worker=worker) as gunicorn:
        gunicorn.wait_started(1)
        slow = BackgroundRequest(gunicorn.port, "/slow?2")
        wait_until(lambda: _has_connection(gunicorn.port), "the request is in flight")
        assert gunicorn.stop() == 0
        assert slow.text().startswith("one ")
    gunicorn.log.wait_for("Application shutdown complete")
    assert "Traceback" not in gunicorn.log.text


def _has_connection(port: int) -> bool:
    return any(
        c.status == psutil.CONN_ESTABLISHED and c.laddr and c.laddr.port == port
        for c in psutil.net_connections("tcp4")
    )


def test_a_request_that_outlasts_the_graceful_timeout_is_cancelled_and_the_application_shuts_down(
    project: Path,
) -> None:
    with Gunicorn(project, "--graceful-timeout", "3") as gunicorn:
        gunicorn.wait_started(1)
        slow = BackgroundRequest(gunicorn.port, "/slow?600")
        wait_until(lambda: _has_connection(gunicorn.port), "the request is in flight")
        assert gunicorn.stop() == 0
        outcome = slow.result()
        assert isinstance(outcome, httpx.Response)
        assert outcome.status_code == 503
    gunicorn.log.wait_for(r"Cancel 1 running request\(s\)")
    gunicorn.log.wait_for("Application shutdown complete")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_int_and_quit_end_gunicorn_at_once(project: Path, number: signal.Signals) -> None:
    with Gunicorn(project, "--graceful-timeout", "600") as gunicorn:
        gunicorn.wait_started(1)
        slow = BackgroundRequest(gunicorn.port, "/slow?600")
        wait_until(lambda: _has_connection(gunicorn.port), "the request is in flight")
        gunicorn.send(number)
        assert gunicorn.wait() == 0
        assert isinstance(slow.result(), httpx.HTTPError)
    assert "Traceback" not in gunicorn.log.text


def test_workers_that_reach_max_requests_are_replaced_without_a_lost_request(project: Path) -> None:
    arguments = ("-w", "2", "--max-requests", "100", "--max-requests-jitter", "20")
    with Gunicorn(project, *arguments) as gunicorn:
        gunicorn.wait_started(2)
        with Load(gunicorn.port) as load:
            gunicorn.wait_started(6)
        assert gunicorn.stop() == 0
    assert load.failures == {}
    limits = {int(n) for n in re.findall(r"Maximum request limit of (\d+) exceeded", gunicorn.log.text)}
    assert limits
    assert all(100 <= limit <= 120 for limit in limits)


@both
def test_a_blocked_loop_is_killed_by_gunicorns_timeout_with_its_stack_in_the_log(
    project: Path, worker: str
) -> None:
    with Gunicorn(project, "--timeout", "2", worker=worker) as gunicorn:
        gunicorn.wait_started(1)
        old = gunicorn.pids()
        blocked = BackgroundRequest(gunicorn.port, "/block?600")
        gunicorn.log.wait_for(rf"WORKER TIMEOUT \(pid:{min(old)}\)")
        gunicorn.log.wait_for("in block_the_loop")
        gunicorn.wait_replaced(old, 1)
        assert isinstance(blocked.result(), httpx.HTTPError)
        gunicorn.wait_started(2)
        assert get(gunicorn.port).status_code == 200
        assert gunicorn.stop() == 0


def test_a_slow_start_and_a_slow_request_are_not_killed(project: Path) -> None:
    (project / "main.py").write_text(
        APP.replace("import time\n", "import time\n\ntime.sleep(3)  # in the app\n").replace(
            "await send", "await asyncio.sleep(3)  # in the app\n            await send", 1
        )
    )
    with Gunicorn(project, "--timeout", "1") as gunicorn:
        gunicorn.wait_started(1)
        assert get(gunicorn.port, "/slow?3").text.startswith("one ")
        assert gunicorn.stop() == 0
    gunicorn.log.wait_for("Application shutdown complete")
    assert "TIMEOUT" not in gunicorn.log.text


def test_a_start_that_never_ends_is_ended_by_the_startup_timeout(project: Path) -> None:
    (project / "main.py").write_text("import time\ntime.sleep(600)  # in the app\n")
    with Gunicorn(project, env={"OSTLER_TIMEOUT_WORKER_STARTUP": "1"}) as gunicorn:
        gunicorn.log.wait_for(r'main\.py", line 2 in <module>')
        gunicorn.log.wait_for(r"Worker \(pid:\d+\) exited with code 1")
        gunicorn.log.wait_for("Booting worker", count=2)


def test_workers_whose_master_was_killed_finish_their_requests_and_end(project: Path) -> None:
    with Gunicorn(project, "-w", "2") as gunicorn:
        gunicorn.wait_started(2)
        slow = BackgroundRequest(gunicorn.port, "/slow?3")
        wait_until(lambda: _has_connection(gunicorn.port), "the request is in flight")
        gunicorn.pids()
        gunicorn.send(signal.SIGKILL)
        assert slow.text().startswith("one ")
        wait_until(lambda: not gunicorn.family(), "the workers are gone")
    gunicorn.log.wait_for("Parent changed", count=2)


def test_usr2_and_term_replace_the_master_without_a_lost_request(project: Path) -> None:
    with Gunicorn(project, "-w", "2", "-p", "pid") as gunicorn:
        gunicorn.wait_started(2)
        with Load(gunicorn.port) as load:
            old = gunicorn.pids()
            (project / "main.py").write_text(app_version("second"))
            gunicorn.send(signal.SIGUSR2)
            gunicorn.wait_started(4)
            successor = int((project / "pid.2").read_text())
            gunicorn.send(signal.SIGTERM)
            assert gunicorn.wait() == 0
            wait_until(lambda: not old & gunicorn.pids(), "the old workers are gone")
            load.bodies.clear()
            load.wait_answers(100)
            assert set(load.bodies) == {"second"}
        os.kill(successor, signal.SIGTERM)
        wait_until(lambda: not gunicorn.family(), "the new master and its workers are gone")
    assert load.failures == {}


def test_signals_for_the_master_that_also_reach_workers_end_none_of_them(project: Path) -> None:
    with Gunicorn(project) as gunicorn:
        gunicorn.wait_started(1)
        pids = gunicorn.pids()
        for number in (
            signal.SIGHUP,
            signal.SIGTTIN,
            signal.SIGTTOU,
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGWINCH,
        ):
            os.kill(min(pids), number)
        assert get(gunicorn.port).status_code == 200
        assert gunicorn.pids() == pids
        gunicorn.log.wait_for("most recent call first")  # a worker logs its stacks at SIGUSR2
        assert gunicorn.stop() == 0


# -- starting


@pytest.mark.parametrize(
    ("source", "app", "code", "words"),
    [
        ("import no_such_module", "main:app", 3, "No module named 'no_such_module'"),
        ("async def app(scope, receive, send): raise SystemExit(9)", "main:app", 3, "startup failed"),
        (APP, "main:absent", 4, "Failed to find attribute 'absent' in 'main'"),
        (
            "def app(environ, start_response): pass",
            "main:app",
            4,
            'main:app" is a WSGI application, which has no',
        ),
    ],
)
def test_an_application_that_cannot_start_ends_gunicorn_with_the_exit_code_of_the_reason(
    tmp_path: Path, source: str, app: str, code: int, words: str
) -> None:
    (tmp_path / "main.py").write_text(source)
    with Gunicorn(tmp_path, app=app, env={"OSTLER_LIFESPAN": "on"}) as gunicorn:
        assert gunicorn.wait() == code
    assert words in gunicorn.log.text


def test_a_wsgi_application_is_served_in_threads(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('content-length', '2')])\n"
        "    return [b'ok']\n"
    )
    with Gunicorn(tmp_path) as gunicorn:
        gunicorn.log.wait_for("is a WSGI application")
        assert get(gunicorn.port).text == "ok"
        assert gunicorn.stop() == 0


def test_a_wrong_setting_gives_one_line_of_error(project: Path) -> None:
    (project / "mine.py").write_text(
        "from ostler.gunicorn import Worker\n\n\nclass Mine(Worker):\n    CONFIG_KWARGS = {'htpp': 'h11'}\n"
    )
    with Gunicorn(project, worker="mine.Mine") as gunicorn:
        assert gunicorn.wait() == 3
    assert "unknown setting 'htpp', did you mean http?" in gunicorn.log.text
    assert "Traceback" not in gunicorn.log.text


@pytest.mark.parametrize(
    ("worker", "words"),
    [(WORKER, "uvloop ['httptools'] True"), (H11_WORKER, "asyncio ['h11'] True")],
)
def test_each_worker_class_has_its_event_loop_and_its_parser(tmp_path: Path, worker: str, words: str) -> None:
    (tmp_path / "main.py").write_text(APP_OF_LIBRARIES)
    with Gunicorn(tmp_path, worker=worker) as gunicorn:
        gunicorn.log.wait_for("lifespan")
        assert get(gunicorn.port).text == words
        assert gunicorn.stop() == 0


def test_a_subclass_sets_settings_that_gunicorn_does_not_have(project: Path) -> None:
    (project / "mine.py").write_text(
        "from ostler.gunicorn import Worker\n\n\nclass Mine(Worker):\n"
        "    CONFIG_KWARGS = {'server_header': False, 'health_path': '/healthz', 'timeout_keep_alive': 60}\n"
    )
    env = {"OSTLER_HEADER": "X-By: ostler", "OSTLER_TIMEOUT_KEEP_ALIVE": "30"}
    with Gunicorn(project, worker="mine.Mine", env=env) as gunicorn:
        gunicorn.wait_started(1)
        gunicorn.log.wait_for("variable OSTLER_TIMEOUT_KEEP_ALIVE is ignored")
        response = get(gunicorn.port)
        assert "server" not in response.headers
        assert response.headers["x-by"] == "ostler"
        assert get(gunicorn.port, "/healthz").text == "ready\n"
        assert gunicorn.stop() == 0


def test_factory_preload_chdir_pythonpath_and_environment_work(tmp_path: Path) -> None:
    code, library = tmp_path / "code", tmp_path / "library"
    code.mkdir()
    library.mkdir()
    (library / "lib.py").write_text("NAME = 'lib'\n")
    (code / "main.py").write_text(
        "import os\nfrom lib import NAME\n\nPID = os.getpid()\n\n\ndef make(word):\n"
        "    async def app(scope, receive, send):\n"
        "        body = f\"{word} {NAME} {os.environ['COLOUR']} {PID}\".encode()\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': body})\n    return app\n"
    )
    arguments = (
        "--chdir",
        str(code),
        "--pythonpath",
        str(library),
        "-e",
        "COLOUR=red",
        "--preload",
        "-w",
        "2",
    )
    with Gunicorn(tmp_path, *arguments, app="main:make('made')") as gunicorn:
        gunicorn.log.wait_for("Started server process", count=2)
        assert get(gunicorn.port).text == f"made lib red {gunicorn.pid}"
        assert gunicorn.stop() == 0


def test_reload_serves_changed_code_and_answers_with_the_error_of_code_that_does_not_compile(
    project: Path,
) -> None:
    (project / "main.py").write_text("app = = 1")
    with Gunicorn(project, "--reload", "--reload-engine", "poll") as gunicorn:
        gunicorn.log.wait_for("lifespan")
        response = get(gunicorn.port)
        assert response.status_code == 500
        assert "SyntaxError" in response.text
        with httpx.Client(base_url=f"http://127.0.0.1:{gunicorn.port}", trust_env=False) as idle:
            idle.get("/")
            (project / "main.py").write_text(app_version("corrected"))
            gunicorn.wait_started(2)
            assert get(gunicorn.port).text.startswith("corrected ")
        (project / "main.py").write_text(app_version("changed again"))
        gunicorn.wait_started(3)
        assert get(gunicorn.port).text.startswith("changed again ")
        assert gunicorn.stop() == 0


HOOKS = """
import os


def note(name):
    def hook(*args):
        with open("hooks", "a") as notes:
            notes.write(name + "\\n")
    return hook


# gunicorn checks the number of a hook's parameters.
on_starting = lambda server: note("on_starting")()
when_ready = lambda server: note("when_ready")()
pre_fork = lambda server, worker: note("pre_fork")()
post_fork = lambda server, worker: note("post_fork")()
post_worker_init = lambda worker: note("post_worker_init")()
worker_int = lambda worker: note("worker_int")()
worker_abort = lambda worker: note("worker_abort")()
worker_exit = lambda server, worker: note("worker_exit")()
child_exit = lambda server, worker: note("child_exit")()
on_exit = lambda server: note("on_exit")()
pre_request = lambda worker, req: note(f"pre_request {req.method} {req.path}")()
post_request = lambda worker, req, environ, resp: note(f"post_request {environ['PATH_INFO']} {resp.status}")()
"""


def test_the_hooks_of_a_configuration_file_are_called_as_with_other_workers(project: Path) -> None:
    (project / "conf.py").write_text(HOOKS)
    with Gunicorn(project, "-c", "conf.py", "--timeout", "2") as gunicorn:
        gunicorn.wait_started(1)
        get(gunicorn.port, "/a?b")
        blocked = BackgroundRequest(gunicorn.port, "/block?600")
        gunicorn.wait_started(2)
        blocked.result()
        gunicorn.send(signal.SIGINT)
        assert gunicorn.wait() == 0
    born = ["pre_fork", "post_fork", "post_worker_init"]
    assert (project / "hooks").read_text().splitlines() == [
        "on_starting",
        "when_ready",
        *born,
        "pre_request GET /a",
        "post_request /a 200 OK",
        "pre_request GET /block",
        "worker_abort",
        "worker_exit",
        "child_exit",
        *born,
        "worker_int",
        "worker_exit",
        "child_exit",
        "on_exit",
    ]


# -- sockets


def test_all_listeners_are_served(project: Path) -> None:
    [port] = free_ports(1)
    arguments = ("-b", f"127.0.0.1:{port}", "-b", f"unix:{project}/app.sock")
    with Gunicorn(project, *arguments) as gunicorn:
        gunicorn.wait_started(1)
        assert get(gunicorn.port).status_code == 200
        assert get(port).status_code == 200
        with httpx.Client(transport=httpx.HTTPTransport(uds=f"{project}/app.sock")) as client:
            assert client.get("http://host/server").text == f"{project}/app.sock None"
        assert gunicorn.stop() == 0
    assert not (project / "app.sock").exists()


def test_an_inherited_socket_is_served(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        fd, port = inherited.fileno(), inherited.getsockname()[1]
        with Gunicorn(project, bind=f"fd://{fd}", pass_fds=(fd,)) as gunicorn:
            gunicorn.wait_started(1)
            assert get(port).status_code == 200
            gunicorn.reload(1)
            assert get(port).status_code == 200
            assert gunicorn.stop() == 0


def test_with_reuse_port_each_worker_has_its_own_socket(project: Path) -> None:
    [port] = free_ports(1)
    with Gunicorn(project, "--reuse-port", "-w", "2", bind=f"127.0.0.1:{port}") as gunicorn:
        gunicorn.wait_started(2)
        wait_until(lambda: len({get(port).text for _ in range(20)}) == 2, "both workers answer")
        assert gunicorn.stop() == 0


def test_peers_over_a_unix_socket_are_trusted_and_others_by_forwarded_allow_ips(project: Path) -> None:
    (project / "main.py").write_text(
        APP.replace('if scope["path"] == "/server"', "if True").replace('scope["server"]', 'scope["client"]')
    )
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    with Gunicorn(
        project, "-b", f"unix:{project}/app.sock", "--forwarded-allow-ips", "192.0.2.1"
    ) as gunicorn:
        gunicorn.wait_started(1)
        with httpx.Client(transport=httpx.HTTPTransport(uds=f"{project}/app.sock")) as client:
            assert client.get("http://host/", headers=forwarded).text == "192.0.2.7 0"
        direct = httpx.get(f"http://127.0.0.1:{gunicorn.port}", headers=forwarded, trust_env=False)
        assert direct.text.startswith("127.0.0.1 ")
        assert gunicorn.stop() == 0


def test_the_scope_has_the_client_of_the_proxy_header(project: Path) -> None:
    (project / "main.py").write_text(
        APP.replace('if scope["path"] == "/server"', "if True").replace('scope["server"]', 'scope["client"]')
    )
    with Gunicorn(project, "--proxy-protocol", "--forwarded-allow-ips", "192.0.2.1") as gunicorn:
        gunicorn.wait_started(1)
        with socket.create_connection(("127.0.0.1", gunicorn.port), PATIENCE) as client:
            client.sendall(b"PROXY TCP4 192.0.2.9 192.0.2.10 4711 80\r\nGET / HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        assert answer.endswith(b"192.0.2.9 4711")
        assert gunicorn.stop() == 0


# -- TLS


@both
def test_tls_with_gunicorns_options_and_no_traceback_for_a_broken_handshake(
    project: Path, worker: str
) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(project / "cert.pem")
    issued.private_key_pem.write_to_path(project / "key.pem")
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    (project / "main.py").write_text(
        APP.replace('if scope["path"] == "/server"', "if True").replace(
            '*scope["server"]', '"over", scope["scheme"]'
        )
    )
    options = ("--certfile", "cert.pem", "--keyfile", "key.pem")
    with Gunicorn(project, *options, "-w", "2", worker=worker) as gunicorn:
        gunicorn.wait_started(2)
        url = f"https://127.0.0.1:{gunicorn.port}/"
        with socket.create_connection(("127.0.0.1", gunicorn.port), PATIENCE) as plain:
            send_get(plain)
            read_to_end(plain)
        with httpx.Client(verify=trust, trust_env=False) as client:
            assert client.get(url).text == "over https"
            gunicorn.reload(2)
            assert client.get(url).text == "over https"
        assert gunicorn.stop() == 0
    assert "Traceback" not in gunicorn.log.text


def test_cert_reqs_and_the_ssl_context_hook_apply_to_clients(project: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(project / "both.pem")
    authority.cert_pem.write_to_path(project / "ca.pem")
    (project / "conf.py").write_text(
        "import ssl\n\n\ndef ssl_context(conf, default):\n    context = default()\n"
        "    context.minimum_version = ssl.TLSVersion.TLSv1_3\n    return context\n"
    )
    options = ("-c", "conf.py", "--certfile", "both.pem", "--ca-certs", "ca.pem", "--cert-reqs", "2")
    with Gunicorn(project, *options) as gunicorn:
        gunicorn.wait_started(1)
        url = f"https://127.0.0.1:{gunicorn.port}/"
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, verify=trust, trust_env=False)
        authority.issue_cert("client@example.org").configure_cert(trust)
        assert httpx.get(url, verify=trust, trust_env=False).status_code == 200
        trust.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.HTTPError):
            httpx.get(url, verify=trust, trust_env=False)
        assert gunicorn.stop() == 0
    assert "Traceback" not in gunicorn.log.text


def test_tls_that_cannot_be_set_up_gives_one_line_of_error(project: Path) -> None:
    (project / "cert.pem").write_text("no certificate")
    with Gunicorn(project, "--certfile", "cert.pem") as gunicorn:
        assert gunicorn.wait() == 3
    gunicorn.log.wait_for("TLS cannot be set up: ")
    assert "Traceback" not in gunicorn.log.text
