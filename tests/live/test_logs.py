"""Logs of real servers: access lines, JSON, access formats, log configurations, and trace."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.clients import open_get
from tests.live.harness import APP, Ostler, wait_until
from tests.live.load import Load

ARGUMENTS = ("main:app", "--port", "0")


def ask(ostler: Ostler, path: str = "/", agent: str = "") -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{ostler.port}{path}", headers={"User-Agent": agent})
    with urllib.request.urlopen(request) as response:
        body: bytes = response.read()
    return body


def objects(text: str) -> list[dict[str, Any]]:
    """Parse each line as a JSON object, and check that it has the fields of every log line."""
    found = []
    for line in text.splitlines():
        found.append(json.loads(line))
        assert {"time", "level", "logger", "message", "slot", "pid"} <= set(found[-1])
    return found


# -- access lines that wait for the end of a loop iteration are not lost

BLOCKING = """
serving = app


async def app(scope, receive, send):
    await serving(scope, receive, send)
    if scope.get("path") == "/and-block":
        open("blocked", "w").close()
        time.sleep(60)  # in the app
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_every_answer_has_its_access_line_when_the_server_has_stopped(
    workers: Sequence[str], project: Path
) -> None:
    with Ostler(project, *ARGUMENTS, *workers) as ostler:
        ostler.log.wait_for("startup complete", count=max(1, len(workers)))
        with Load(ostler.port, kept=20, pause=0) as load:
            load.wait_answers(500)
            assert ostler.stop() == 0
        ostler.out.close()
        assert ostler.out.text.count('"GET / HTTP/1.1" 200 OK\n') == load.answered
        assert ostler.out.text.count("\n") == load.answered


def test_an_access_line_is_written_though_the_loop_is_blocked_right_after_it(project: Path) -> None:
    (project / "main.py").write_text(APP + BLOCKING)
    with (
        Ostler(project, *ARGUMENTS, "--workers", "1", "--timeout-worker-healthcheck", "6") as ostler,
        open_get(ostler.port, "/and-block"),
    ):
        ostler.out.wait_for('"GET /and-block HTTP/1.1" 200 OK')
        assert ": aborted" not in ostler.log.text
        ostler.log.wait_for(r"silent for .*: aborted")


def test_an_access_line_is_written_though_a_plain_server_with_a_blocked_loop_is_stopped(
    project: Path,
) -> None:
    (project / "main.py").write_text(APP + BLOCKING)
    with Ostler(project, *ARGUMENTS, "--timeout-graceful-shutdown", "0") as ostler:
        ostler.log.wait_for("startup complete")
        with open_get(ostler.port, "/and-block"):
            wait_until((project / "blocked").exists, "the application blocks the loop")
            ostler.send(signal.SIGTERM)
            ostler.out.wait_for('"GET /and-block HTTP/1.1" 200 OK')


# -- JSON

LOUD = """
import gc
import logging
import warnings

serving = app


async def app(scope, receive, send):
    if scope["path" if scope["type"] == "http" else "type"] == "/raise":
        raise RuntimeError("line one\\nline two \\udcff")
    if scope["path" if scope["type"] == "http" else "type"] == "/lost":
        async def lost():
            raise KeyError("lost")
        task = asyncio.get_running_loop().create_task(lost())
        await asyncio.wait([task])
        del task
        gc.collect()  # PyPy counts no references
        logging.getLogger("mine").warning("no logging is set up")
    await serving(scope, receive, send)
"""


def test_every_line_of_a_run_with_workers_is_json(project: Path) -> None:
    (project / "main.py").write_text(APP + LOUD)
    with Ostler(project, *ARGUMENTS, "--workers", "2", "--log-format", "json") as ostler:
        ostler.wait_ready(2)
        ask(ostler, "/a%20b%0a?c=%22", 'quo"ted \\ caf\xe9')
        ostler.out.wait_for("a%20b")  # logged after the client has the response
        ask(ostler, "/lost")
        ostler.out.wait_for("/lost")
        with pytest.raises(urllib.error.HTTPError) as raised:
            ask(ostler, "/raise")
        raised.value.close()
        ostler.out.wait_for("/raise")
        os.kill(next(iter(ostler.workers())), signal.SIGKILL)
        ostler.wait_ready(3)
        ostler.send(signal.SIGHUP)
        ostler.wait_ready(5)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        (project / "main.py").write_text("raise ImportError('half\\ndeployed')\n" + APP + LOUD)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("given up")
        assert ostler.stop() == 0
        requests, rest = objects(ostler.out.text), objects(ostler.log.text)

    first = requests[0]
    assert (first["method"], first["path"], first["query"]) == ("GET", "/a%20b%0A", "c=%22")
    assert (first["status"], first["http_version"], first["level"]) == (200, "1.1", "INFO")
    assert first["client"].startswith("127.0.0.1:")
    assert first["slot"] in (1, 2)
    assert first["response_length"] > 0
    assert 0 < first["request_time"] < 30
    assert first["logger"] == "ostler.access"
    assert [r["status"] for r in requests] == [200, 200, 500]
    assert {r["slot"] for r in rest} == {None, 1, 2}
    failed = [r for r in rest if "exception" in r and "RuntimeError" in r["exception"]]
    assert failed[0]["exception"].endswith("RuntimeError: line one\nline two \\udcff")
    assert [r["message"] for r in rest if r["logger"] == "mine"] == ["no logging is set up"]
    assert [r["logger"] for r in rest if "never retrieved" in r["message"]] == ["asyncio"]
    assert rest[-1]["message"].startswith("Stopping arbiter process")


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_the_line_of_a_failed_start_is_json_too(workers: Sequence[str], project: Path) -> None:
    (project / "main.py").write_text("raise ImportError('broken')\n")
    with Ostler(project, *ARGUMENTS, *workers, "--log-format", "json", "--log-level", "critical") as ostler:
        assert ostler.wait() == 3
        wait_until(lambda: ostler.log.text.endswith("\n"), "the last line is complete")
        last = objects(ostler.log.text)[-1]

    assert last["level"] == "CRITICAL"
    assert "ImportError: broken" in last["message"]


def test_the_warning_of_a_misspelled_variable_is_json_too(project: Path) -> None:
    env = {"OSTLER_LOG_FORMAT": "json", "OSTLER_TIMEOUT_KEEPALIVE": "5"}
    with Ostler(project, *ARGUMENTS, env=env) as ostler:
        ostler.log.wait_for("running on")
        assert ostler.stop() == 0
        first = objects(ostler.log.text)[0]

    assert first["level"] == "WARNING"
    assert "OSTLER_TIMEOUT_KEEPALIVE is ignored" in first["message"]


# -- formats of access log lines


def test_an_access_line_has_the_given_format_and_nothing_else(project: Path) -> None:
    # "combined" names gunicorn's default format.
    with Ostler(project, *ARGUMENTS, "--workers", "1", "--access-log-format", "combined") as ostler:
        ostler.wait_ready(1)
        ask(ostler, "/?a", "an agent")
        pattern = r'^127\.0\.0\.1 - - \[[^\]]+\] "GET /\?a HTTP/1\.1" 200 \d+ "-" "an agent"$'
        ostler.out.wait_for(pattern)
        assert ostler.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--access-log-format", "%(x)s"), "there is no atom %(x)s; expected gunicorn's atoms"),
        (("--log-config", "missing.json"), "missing.json: cannot be read: No such file or directory"),
        (("--log-config", "bad.json"), "log configuration bad.json cannot be applied: "),
        (("--log-config", "bad.json", "--log-format", "json"), "exclude each other"),
    ],
)
def test_a_wrong_log_setting_gives_one_line_of_error_before_anything_starts(
    arguments: Sequence[str], message: str, project: Path
) -> None:
    (project / "bad.json").write_text('{"version": 1, "root": {"handlers": ["none"]}}')
    with Ostler(project, *ARGUMENTS, "--workers", "2", *arguments) as ostler:
        assert ostler.wait() == 2
        ostler.log.wait_for(r"\n")

    assert ostler.log.text.startswith("Error: ")
    assert ostler.log.text.count("\n") == 1
    assert message in ostler.log.text
    assert ostler.out.text == ""


# -- log configurations


def to_file(name: str) -> str:
    """Return a log configuration for uvicorn that logs everything to one file."""
    return json.dumps(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "default": {"()": "uvicorn.logging.DefaultFormatter", "fmt": "%(process)d %(message)s"},
                "access": {"()": "uvicorn.logging.AccessFormatter", "fmt": "%(process)d %(request_line)s"},
            },
            "handlers": {
                "default": {"class": "logging.FileHandler", "formatter": "default", "filename": name},
                "access": {
                    "class": "logging.handlers.WatchedFileHandler",
                    "formatter": "access",
                    "filename": name,
                },
            },
            "loggers": {
                "uvicorn": {"handlers": ["default"], "level": "INFO", "propagate": False},
                "uvicorn.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
            },
        }
    )


def test_a_log_configuration_is_applied_in_every_process_and_sigusr1_reopens_its_files(project: Path) -> None:
    (project / "log.json").write_text(to_file("one.log"))
    log = project / "one.log"
    with Ostler(project, *ARGUMENTS, "--workers", "2", "--log-config", "log.json") as ostler:
        family = {str(ostler.pid)}
        wait_until(lambda: log.exists() and log.read_text().count("is ready") == 2, "both workers are ready")
        family.update(str(pid) for pid in ostler.workers())
        wait_until(lambda: log.read_text().count("startup complete") == 2, "both have logged their startup")
        assert {line.split()[0] for line in log.read_text().splitlines()} == family

        log.rename(project / "one.log.1")
        ostler.send(signal.SIGUSR1)
        port = port_from_log(project / "one.log.1")
        wait_until(
            lambda: is_answered(port) and log.exists() and "GET /" in log.read_text(),
            "the request is logged to a new file",
        )
        ostler.send(signal.SIGTTIN)
        wait_until(
            lambda: log.exists() and "is ready" in log.read_text(), "the arbiter logs to the new file, too"
        )
        before = (project / "one.log.1").read_text()

        assert ostler.stop() == 0
    assert "Stopping arbiter process" in log.read_text()
    assert log.read_text().count("Finished server process") == 3
    assert (project / "one.log.1").read_text() == before
    assert (ostler.out.text, ostler.log.text) == ("", "")


def port_from_log(log: Path) -> int:
    return int(log.read_text().partition("running on http://127.0.0.1:")[2].split()[0])


def is_answered(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as response:
        return bool(response.status == 200)


def test_sighup_reads_the_log_configuration_again_and_a_bad_one_changes_nothing(project: Path) -> None:
    config = project / "log.json"
    config.write_text(to_file("one.log"))
    one, two = project / "one.log", project / "two.log"
    with Ostler(project, *ARGUMENTS, "--workers", "2", "--log-config", "log.json") as ostler:
        wait_until(lambda: one.exists() and one.read_text().count("is ready") == 2, "both workers are ready")
        workers = set(ostler.workers())

        config.write_text(to_file("no/such/directory/log"))
        ostler.send(signal.SIGHUP)
        wait_until(lambda: "no rolling restart" in one.read_text(), "the refusal is logged")
        config.write_text('{"version": 1')
        ostler.send(signal.SIGHUP)
        wait_until(lambda: one.read_text().count("no rolling restart") == 2, "the second refusal is logged")
        # A worker that is spawned now does not use the bad file either.
        ostler.send(signal.SIGTTIN)
        wait_until(lambda: one.read_text().count("is ready") == 3, "a third worker is ready")
        assert workers < set(ostler.workers())

        config.write_text(to_file("two.log"))
        ostler.send(signal.SIGHUP)
        wait_until(
            lambda: two.exists() and "generation 2 complete" in two.read_text(), "the roll is complete"
        )
        wait_until(lambda: not workers & set(ostler.workers()), "the old workers are gone")
        assert is_answered(port_from_log(one))
        wait_until(lambda: "GET / HTTP/1.1" in two.read_text(), "the request is logged to the new file")
        assert ostler.stop() == 0
    assert "cannot be applied: Unable to configure handler" in one.read_text()
    assert "Stopping arbiter process" in two.read_text()
    assert "Traceback" not in one.read_text() + two.read_text() + ostler.log.text


# -- the application's own logging

OWN_LOGGING = """
import logging.config

logging.basicConfig(level=logging.DEBUG, force=True)
logging.config.dictConfig({
    "version": 1,
    "formatters": {"f": {"format": "from the app: %(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "root": {"handlers": ["h"], "level": "DEBUG"},
})
"""


@pytest.mark.parametrize("when", ["at import", "at startup"])
@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_the_applications_own_logging_neither_silences_nor_doubles_ostlers_lines(
    options: Sequence[str], when: str, project: Path
) -> None:
    if when == "at import":
        code = OWN_LOGGING + APP
    else:
        late = "".join(f"        {line}\n" for line in OWN_LOGGING.splitlines())
        code = APP.replace('"lifespan":\n', '"lifespan":\n' + late, 1)
    (project / "main.py").write_text(code)
    with Ostler(project, *ARGUMENTS, *options) as ostler:
        ostler.log.wait_for("Application startup complete.")
        if options:
            ostler.wait_ready(1)
        ask(ostler)
        ostler.out.wait_for('"GET / HTTP/1.1" 200 OK')
        assert ostler.stop() == 0

    assert ostler.out.text.count("\n") == 1
    for text in (
        "Waiting for application startup.",
        "Application startup complete.",
        "Finished server process",
    ):
        assert ostler.log.text.count(text) == 1
        assert f"INFO:     {text}" in ostler.log.text
    assert "from the app: " not in ostler.log.text.replace("from the app: Using selector", "")


# -- trace


def test_log_level_trace_shows_asgi_messages_and_connections(project: Path) -> None:
    with Ostler(project, *ARGUMENTS, "--log-level", "trace") as ostler:
        ask(ostler)
        ostler.log.wait_for("HTTP connection lost")
        assert ostler.stop() == 0

    log = ostler.log.text
    assert "TRACE:    ASGI [1] Started scope={'type': 'lifespan'" in log
    assert "TRACE:    ASGI [1] Receive {'type': 'lifespan.startup'}" in log
    assert "ASGI [2] Send {'type': 'http.response.body', 'body': '<" in log
    assert "'headers': '<...>'" in log
    assert log.index("HTTP connection made") < log.index("[2] Started") < log.index("HTTP connection lost")
