"""The log of real fleets: as JSON from the first line to the last, and as a log configuration says."""

from __future__ import annotations

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.live.harness import APP, Ostler, wait_until
from tests.live.load import Load

ARGUMENTS = ("main:app", "--port", "0")


def ask(ostler: Ostler, path: str = "/", agent: str = "") -> bytes:
    request = urllib.request.Request(f"http://127.0.0.1:{ostler.port}{path}", headers={"User-Agent": agent})
    with urllib.request.urlopen(request) as response:
        body: bytes = response.read()
    return body


def objects(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.splitlines():
        found.append(json.loads(line))
        assert {"time", "level", "logger", "message", "slot", "pid"} <= set(found[-1])
    return found


# -- nothing is lost that waits for the end of a round

BLOCKING = """
serving = app


async def app(scope, receive, send):
    await serving(scope, receive, send)
    if scope.get("path") == "/and-block":
        open("blocked", "w").close()
        time.sleep(60)  # in the app
"""


@pytest.mark.parametrize("workers", [(), ("--workers", "2")])
def test_every_answer_has_its_line_when_the_server_has_stopped(workers: Sequence[str], project: Path) -> None:
    with Ostler(project, *ARGUMENTS, *workers) as ostler:
        ostler.log.wait_for("startup complete", count=max(1, len(workers)))
        with Load(ostler.port, kept=20, pause=0) as load:
            load.wait_answers(500)
            assert ostler.stop() == 0
        ostler.out.close()
        assert ostler.out.text.count('"GET / HTTP/1.1" 200 OK\n') == load.answered
        assert ostler.out.text.count("\n") == load.answered


def test_a_line_is_written_although_the_loop_is_held_up_right_after_it(project: Path) -> None:
    (project / "main.py").write_text(APP + BLOCKING)
    with (
        Ostler(project, *ARGUMENTS, "--workers", "1", "--timeout-worker-healthcheck", "6") as ostler,
        socket.create_connection(("127.0.0.1", ostler.port)) as client,
    ):
        client.sendall(b"GET /and-block HTTP/1.1\r\nHost: test\r\n\r\n")
        ostler.out.wait_for('"GET /and-block HTTP/1.1" 200 OK')
        assert ": aborted" not in ostler.log.text
        ostler.log.wait_for(r"silent for .*: aborted")


def test_a_plain_server_that_is_told_to_stop_writes_it_even_then(project: Path) -> None:
    (project / "main.py").write_text(APP + BLOCKING)
    with Ostler(project, *ARGUMENTS, "--timeout-graceful-shutdown", "0") as ostler:
        ostler.log.wait_for("startup complete")
        with socket.create_connection(("127.0.0.1", ostler.port)) as client:
            client.sendall(b"GET /and-block HTTP/1.1\r\nHost: test\r\n\r\n")
            wait_until((project / "blocked").exists, "it blocks")
            ostler.send(signal.SIGTERM)
            ostler.out.wait_for('"GET /and-block HTTP/1.1" 200 OK')


# -- JSON

LOUD = """
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
        logging.getLogger("mine").warning("no logging is set up")
    await serving(scope, receive, send)
"""


def test_the_whole_life_of_a_fleet_is_json(project: Path) -> None:
    (project / "main.py").write_text(APP + LOUD)
    with Ostler(project, *ARGUMENTS, "--workers", "2", "--log-format", "json") as ostler:
        ostler.wait_ready(2)
        ask(ostler, "/a%20b%0a?c=%22", 'quo"ted \\ caf\xe9')
        ostler.out.wait_for("a%20b")  # logged when the response is complete, which the client knows first
        ask(ostler, "/lost")
        ostler.out.wait_for("/lost")
        with pytest.raises(urllib.error.HTTPError):
            ask(ostler, "/raise")
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
def test_the_last_words_are_json_too(workers: Sequence[str], project: Path) -> None:
    (project / "main.py").write_text("raise ImportError('broken')\n")
    with Ostler(project, *ARGUMENTS, *workers, "--log-format", "json", "--log-level", "critical") as ostler:
        assert ostler.wait() == 3
        wait_until(lambda: ostler.log.text.endswith("\n"), "the last line")
        last = objects(ostler.log.text)[-1]

    assert last["level"] == "CRITICAL"
    assert "ImportError: broken" in last["message"]


def test_a_variable_that_is_nearly_ours_is_warned_of_in_json(project: Path) -> None:
    env = {"OSTLER_LOG_FORMAT": "json", "OSTLER_TIMEOUT_KEEPALIVE": "5"}
    with Ostler(project, *ARGUMENTS, env=env) as ostler:
        ostler.log.wait_for("running on")
        assert ostler.stop() == 0
        first = objects(ostler.log.text)[0]

    assert first["level"] == "WARNING"
    assert "OSTLER_TIMEOUT_KEEPALIVE is ignored" in first["message"]


# -- formats of access log lines


def test_a_format_is_all_there_is_in_a_line(project: Path) -> None:
    # The name stands for gunicorn's default format.
    with Ostler(project, *ARGUMENTS, "--workers", "1", "--access-log-format", "combined") as ostler:
        ostler.wait_ready(1)
        ask(ostler, "/?a", "an agent")
        pattern = r'^127\.0\.0\.1 - - \[[^\]]+\] "GET /\?a HTTP/1\.1" 200 \d+ "-" "an agent"$'
        ostler.out.wait_for(pattern)
        assert ostler.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--access-log-format", "%(x)s"), "there is no atom %(x)s; expected gunicorn's atoms"),
        (("--log-config", "missing.json"), "missing.json: cannot be read: No such file or directory"),
        (("--log-config", "bad.json"), "log configuration bad.json cannot be applied: "),
        (("--log-config", "bad.json", "--log-format", "json"), "exclude each other"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_starts(
    arguments: Sequence[str], said: str, project: Path
) -> None:
    (project / "bad.json").write_text('{"version": 1, "root": {"handlers": ["none"]}}')
    with Ostler(project, *ARGUMENTS, "--workers", "2", *arguments) as ostler:
        assert ostler.wait() == 2
        ostler.log.wait_for(r"\n")

    assert ostler.log.text.startswith("Error: ")
    assert ostler.log.text.count("\n") == 1
    assert said in ostler.log.text
    assert ostler.out.text == ""


# -- log configurations


def to_file(name: str) -> str:
    """A log configuration for uvicorn, as its users bring it along, with everything in one file."""
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
        wait_until(lambda: log.read_text().count("startup complete") == 2, "both have said so")
        assert {line.split()[0] for line in log.read_text().splitlines()} == family

        log.rename(project / "one.log.1")
        ostler.send(signal.SIGUSR1)
        port = log_port(project / "one.log.1")
        wait_until(lambda: answered(port) and log.exists() and "GET /" in log.read_text(), "a new file")
        ostler.send(signal.SIGTTIN)
        wait_until(lambda: log.exists() and "is ready" in log.read_text(), "the arbiter's lines there, too")
        before = (project / "one.log.1").read_text()

        assert ostler.stop() == 0
    assert "Stopping arbiter process" in log.read_text()
    assert log.read_text().count("Finished server process") == 3
    assert (project / "one.log.1").read_text() == before
    assert (ostler.out.text, ostler.log.text) == ("", "")


def log_port(log: Path) -> int:
    return int(log.read_text().partition("running on http://127.0.0.1:")[2].split()[0])


def answered(port: int) -> bool:
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
        wait_until(lambda: "no rolling restart" in one.read_text(), "the refusal")
        config.write_text('{"version": 1')
        ostler.send(signal.SIGHUP)
        wait_until(lambda: one.read_text().count("no rolling restart") == 2, "the second refusal")
        # Neither has what is spawned now anything to do with the bad file.
        ostler.send(signal.SIGTTIN)
        wait_until(lambda: one.read_text().count("is ready") == 3, "a third worker is ready")
        assert workers < set(ostler.workers())

        config.write_text(to_file("two.log"))
        ostler.send(signal.SIGHUP)
        wait_until(lambda: two.exists() and "generation 2 complete" in two.read_text(), "the roll")
        assert not workers & set(ostler.workers())
        assert answered(log_port(one))
        wait_until(lambda: "GET / HTTP/1.1" in two.read_text(), "the request, in the new file")
        assert ostler.stop() == 0
    assert "cannot be applied: Unable to configure handler" in one.read_text()
    assert "Stopping arbiter process" in two.read_text()
    assert "Traceback" not in one.read_text() + two.read_text() + ostler.log.text


# -- the application's own logging

THEIRS = """
import logging.config

logging.basicConfig(level=logging.DEBUG, force=True)
logging.config.dictConfig({
    "version": 1,
    "formatters": {"f": {"format": "theirs: %(message)s"}},
    "handlers": {"h": {"class": "logging.StreamHandler", "formatter": "f"}},
    "root": {"handlers": ["h"], "level": "DEBUG"},
})
"""


@pytest.mark.parametrize("when", ["at import", "at startup"])
@pytest.mark.parametrize("options", [(), ("--workers", "1")])
def test_the_applications_own_logging_neither_silences_nor_doubles_ours(
    options: Sequence[str], when: str, project: Path
) -> None:
    if when == "at import":
        code = THEIRS + APP
    else:
        late = "".join(f"        {line}\n" for line in THEIRS.splitlines())
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
    assert "theirs: " not in ostler.log.text.replace("theirs: Using selector", "")


# -- trace


def test_trace_shows_messages_and_connections(project: Path) -> None:
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
