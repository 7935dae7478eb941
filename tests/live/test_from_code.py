"""Scripts that call ostler.run(), started by `python script.py`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.clients import get
from tests.live.harness import PATIENCE, Ostler, environment, free_ports, serving, wait_until

UNGUARDED = """

import ostler, sys
ostler.run("main:app", port=0, **eval(sys.argv[1]))
"""

ROUND_TRIP = """
import asyncio, faulthandler, json, os, signal, sys
import ostler
from main import app

os.environ["NOTIFY_SOCKET"] = "/nowhere"


def state():
    own = {number.name: repr(signal.getsignal(number)) for number in signal.valid_signals()
           if isinstance(number, signal.Signals)}
    return {
        "handlers": own,
        "mask": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "umask": os.umask(0o22),
        "directory": os.getcwd(),
        "path": list(sys.path),
        "environment": dict(os.environ),
        # Python 3.14 deprecates policies, and 3.16 has none.
        "policy": sys.version_info < (3, 14) and type(asyncio.get_event_loop_policy()).__name__,
        "faulthandler": faulthandler.is_enabled(),
        "wakeup": signal.set_wakeup_fd(-1),
    }


def own_handler(number, frame):
    print("received", number, flush=True)


if __name__ == "__main__":
    os.umask(0o22)
    signal.signal(signal.SIGTERM, own_handler)
    signal.signal(signal.SIGUSR1, own_handler)
    signal.signal(signal.SIGCHLD, own_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTIN, signal.SIGTERM])
    before = state()
    given = eval(sys.argv[1])
    returned = ostler.run(app if given.pop("object", False) else "main:app", port=0, env_file="env", **given)
    after = state()
    print(json.dumps({key: [before[key], after[key]] for key in before if before[key] != after[key]}))
    print("returned", returned, flush=True)
    os.kill(os.getpid(), signal.SIGUSR1)
"""


def run_script(project: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that ends by itself."""
    (project / "script.py").write_text(source)
    return subprocess.run(
        [sys.executable, "script.py", *arguments],
        cwd=project,
        env=environment(None),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def serving_script(project: Path, source: str, *arguments: str) -> Ostler:
    """Start a script that serves until it is stopped."""
    (project / "script.py").write_text(source)
    return Ostler(project, *arguments, program=["script.py"])


# -- run


@pytest.mark.parametrize(
    "given",
    [
        "{'object': True, 'loop': 'uvloop'}",
        "{'object': True, 'loop': 'asyncio'}",
        "{'loop': 'asyncio'}",
        "{'workers': 2}",
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_returns_when_it_is_stopped_and_restores_the_state_of_the_process(
    project: Path, given: str, number: signal.Signals
) -> None:
    (project / "env").write_text("FROM_THE_FILE=1\n")
    with serving_script(project, ROUND_TRIP, given) as ostler:
        if "workers" in given:
            ostler.wait_ready(2)
        assert get(ostler.port, "/").status_code == 200
        assert ostler.stop(number) == 0
        changed, returned, *received = ostler.out.text.splitlines()[-3:]
    assert json.loads(changed) == {}
    assert returned == "returned None"
    assert received == [f"received {int(signal.SIGUSR1)}"]
    assert "Traceback" not in ostler.log.text


def test_workers_import_the_application_and_not_the_script(project: Path) -> None:
    source = "import ostler\nprint('script')\nostler.run('main:app', port=0, workers=2)\n"
    with serving_script(project, source) as ostler:
        ostler.wait_ready(2)
        assert get(ostler.port, "/").text.split()[2] in {"1", "2"}
        assert ostler.stop() == 0
    assert ostler.out.text.count("script\n") == 1


@pytest.mark.parametrize("workers", [None, 1])
def test_with_log_config_none_lines_go_to_the_applications_own_logging(
    project: Path, workers: int | None
) -> None:
    own = "import logging\nlogging.basicConfig(level=logging.INFO, format='mine %(name)s %(message)s')\n"
    (project / "main.py").write_text(own + (project / "main.py").read_text())
    [port] = free_ports(1)
    script = (
        "import ostler\nif __name__ == '__main__':\n"
        f"    ostler.run('main:app', port={port}, workers={workers}, log_config=None)\n"
    )
    (project / "script.py").write_text(script)
    with Ostler(project, program=["script.py"]) as ostler:
        ostler.log.wait_for("mine ostler.error.worker Application startup complete")
        assert get(port, "/").status_code == 200
        ostler.log.wait_for("mine ostler.access")
        assert ostler.stop() == 0
    assert ostler.out.text == ""
    assert "INFO: " not in ostler.log.text


def test_run_can_be_called_twice_in_one_process(project: Path) -> None:
    source = "import ostler\nfor workers in (None, 1):\n    ostler.run('main:app', port=0, workers=workers)\n"
    with serving_script(project, source) as ostler:
        ostler.log.wait_for("Application startup complete")
        ostler.send(signal.SIGTERM)
        ostler.wait_ready(1)
        assert ostler.stop() == 0


def test_run_accepts_the_arguments_of_uvicorn_run(project: Path) -> None:
    source = """
import logging, pathlib, ostler
from main import app
ostler.run(
    app, host="127.0.0.1", port=0, uds=None, fd=None, loop="asyncio", http="h11", lifespan="on",
    interface="asgi3", workers=None, env_file=None, log_level=logging.INFO, access_log=False,
    proxy_headers=True, server_header=False, date_header=True, forwarded_allow_ips=["127.0.0.1"],
    root_path="/api", limit_concurrency=100, backlog=10, limit_max_requests=None,
    limit_max_requests_jitter=0, timeout_keep_alive=5, timeout_graceful_shutdown=None,
    timeout_worker_healthcheck=5, headers=[("X-Horse", "grey: dapple")], use_colors=False,
    app_dir=pathlib.Path("."), factory=False, h11_max_incomplete_event_size=65536,
)
"""
    with serving_script(project, source) as ostler:
        answer = get(ostler.port, "/")
        assert answer.headers["x-horse"] == "grey: dapple"
        assert "server" not in answer.headers
        assert ostler.stop() == 0
    assert ostler.out.text == ""


def test_with_json_a_warning_is_one_line_of_json(project: Path) -> None:
    source = "import ostler\nostler.run('main:app', port=0, log_format='json', reload_delay=1)\n"
    with serving_script(project, source) as ostler:
        ostler.log.wait_for("Application startup complete")
        assert ostler.stop() == 0
    lines = [json.loads(line) for line in ostler.log.text.splitlines()]
    assert [line["level"] for line in lines if "reload_delay" in line["message"]] == ["WARNING"]


def test_arguments_in_code_override_variables_and_files(project: Path) -> None:
    (project / "pyproject.toml").write_text(
        "[tool.ostler]\nworkers = 1\nheader = ['X-From: file']\nport = 1\n"
    )
    source = "import ostler\nostler.run('main:app', port=0)\n"
    (project / "script.py").write_text(source)
    with Ostler(project, program=["script.py"], env={"OSTLER_PORT": "2", "OSTLER_WORKERS": "2"}) as ostler:
        ostler.wait_ready(2)
        assert get(ostler.port, "/").headers["x-from"] == "file"
        assert ostler.stop() == 0


def test_sighup_reads_the_files_again_and_keeps_the_arguments_in_code(project: Path) -> None:
    settings = project / "pyproject.toml"
    settings.write_text("[tool.ostler]\nheader = ['X-From: one']\nserver_header = true\n")
    source = "import ostler\nostler.run('main:app', port=0, workers=1, server_header=False)\n"
    with serving_script(project, source) as ostler:
        ostler.wait_ready(1)
        settings.write_text("[tool.ostler]\nheader = ['X-From: two']\nserver_header = true\n")
        ostler.send(signal.SIGHUP)
        ostler.wait_ready(2)
        wait_until(lambda: get(ostler.port, "/").headers["x-from"] == "two", "the new header is sent")
        assert "server" not in get(ostler.port, "/").headers
        assert ostler.stop() == 0


def test_run_in_a_thread_serves_and_leaves_the_signal_handlers_alone(project: Path) -> None:
    source = """
import signal, threading, ostler
from main import app
before = signal.getsignal(signal.SIGTERM)
thread = threading.Thread(target=ostler.run, args=(app,), kwargs={"port": 0}, daemon=True)
thread.start()
thread.join()
"""
    with serving_script(project, source) as ostler:
        assert get(ostler.port, "/").status_code == 200
        ostler.send(signal.SIGTERM)
        assert ostler.wait() == -signal.SIGTERM


# -- the script is imported again


@pytest.mark.parametrize("given", ["{}", "{'workers': 2}", "{'lifespan': 'on'}"])
def test_a_call_without_a_main_guard_is_reported_and_not_repeated(project: Path, given: str) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + UNGUARDED)
    with Ostler(project, given, program=["main.py"]) as ostler:
        assert ostler.wait() == 3
        ostler.wait_gone()
    line = "main.py calls ostler.run() when it is imported: put it under if __name__ == '__main__':"
    assert ostler.log.text.splitlines()[-1] == f"Error: {line}"
    assert "Traceback" not in ostler.log.text
    assert ostler.log.text.count("running on") == 1


def test_a_call_without_a_main_guard_is_reported_by_the_command_too(project: Path) -> None:
    (project / "main.py").write_text((project / "main.py").read_text() + "\nimport ostler\nostler.run(app)\n")
    with Ostler(project, "main:app", "--port", "0", "--workers", "1") as ostler:
        assert ostler.wait() == 3
    assert "Error: main.py calls ostler.run() when it is imported: put it under" in ostler.log.text


def test_server_run_without_a_main_guard_is_reported_too(project: Path) -> None:
    source = "import ostler\napp = 1\nostler.Server(ostler.Config('script:app', port=0)).run()\n"

    done = run_script(project, source)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(
        "StartupError: script.py calls ostler.Server.run() when it is imported: "
        "put it under if __name__ == '__main__':"
    )


def test_a_process_that_multiprocessing_spawns_does_not_serve_again(project: Path) -> None:
    source = """
import multiprocessing, ostler, threading
from main import app

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=print)
    process.start()
    process.join()
    print("exit code", process.exitcode)
else:
    ostler.run(app, port=0)
"""

    done = run_script(project, source)

    assert done.stdout == "exit code 1\n"
    assert "script.py calls ostler.run() when it is imported" in done.stderr.splitlines()[-1]


def test_an_application_can_start_ostler_in_a_child_process(project: Path) -> None:
    (project / "main.py").write_text(
        (project / "main.py").read_text()
        + """
import subprocess, sys
if "OSTLER_SLOT" in os.environ:
    child = subprocess.Popen([sys.executable, "inner.py"], env={**os.environ, "PYTHONWARNINGS": "ignore"})
"""
    )
    (project / "inner.py").write_text(
        "import ostler\nasync def app(scope, receive, send): pass\n"
        "print('inner', flush=True)\nostler.run(app, port=0)\n"
    )
    with serving(project, "--workers", "1") as ostler:
        ostler.out.wait_for("inner")
        ostler.log.wait_for("running on http", count=2)
        assert ostler.stop() == 0


# -- refusals


@pytest.mark.parametrize(
    ("call", "code", "line"),
    [
        ("ostler.run(app, prot=1)", 2, "unknown setting 'prot', did you mean port?"),
        ("ostler.run(app, port='80')", 2, "port from argument port is '80': expected a whole number of "),
        (
            "ostler.run(app, headers=[('a',)])",
            2,
            "header from argument headers is [('a',)]: expected a header",
        ),
        (
            "ostler.run(app, header='A: b', headers=[])",
            2,
            "header and headers are the same setting: expected",
        ),
        ("ostler.run(app, http2=True)", 2, "http2 from argument http2: ostler does not speak HTTP/2"),
        ("ostler.run()", 2, "no application given: expected APP as module:attribute, such as main:app"),
        ("ostler.run('main')", 2, "app from argument app is 'main': expected module:attribute, such as main"),
        ("ostler.run(3)", 2, "app from argument app is 3: expected module:attribute, such as main:app"),
        (
            "ostler.run(app, workers=2)",
            2,
            "workers from argument workers takes an application that other processes can import: pass it as "
            '"module:attribute", such as "main:app", instead of the object',
        ),
        ("ostler.run('none:app', port=0)", 3, 'Could not import module "none": there is no such module'),
        ("ostler.run(app, fd=99)", 4, "--fd 99: descriptor 99 is not open"),
        ("ostler.run(app, config='none.toml')", 2, "none.toml: cannot be read: No such file or directory"),
        ("in_a_loop()", 2, "ostler.run() was called in a running event loop: await ostler.Server("),
        ("in_a_thread()", 2, "workers from argument workers takes the main thread: call ostler.run() there"),
    ],
)
def test_a_mistake_gives_one_line_of_error_and_the_exit_code_of_the_command(
    project: Path, call: str, code: int, line: str
) -> None:
    source = f"""
import asyncio, sys, threading, ostler
from main import app

def in_a_loop():
    async def main():
        ostler.run(app)
    asyncio.run(main())

def in_a_thread():
    codes = []
    def target():
        try:
            ostler.run("main:app", workers=2)
        except SystemExit as exc:
            codes.append(exc.code)
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    sys.exit(codes[0])

{call}
"""

    done = run_script(project, source)

    errors = [each for each in done.stderr.splitlines() if not each.startswith("INFO:")]
    assert len(errors) == 1
    assert errors[0].startswith(f"Error: {line}")
    assert done.returncode == code


def test_ctrl_c_during_the_import_is_quiet(project: Path) -> None:
    (project / "slow.py").write_text(
        "import time\nprint('importing', flush=True)\ntime.sleep(60)  # in the app\n"
    )
    with serving_script(project, "import ostler\nostler.run('slow:app', port=0)\n") as ostler:
        ostler.out.wait_for("importing")
        ostler.send(signal.SIGINT)
        assert ostler.wait() == 0
    assert "Traceback" not in ostler.log.text
