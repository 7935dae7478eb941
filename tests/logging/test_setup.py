"""How ostler's loggers are configured, where their lines go, and what happens if they cannot be written."""

from __future__ import annotations

import io
import json
import logging
import logging.handlers
import os
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings

AREAS = ("ostler.error.supervisor", "ostler.error.worker")
LOGGERS = ("ostler", "ostler.error", "ostler.access", *AREAS)


@pytest.fixture(autouse=True)
def unconfigured_loggers() -> Iterator[None]:
    """Give every test loggers without handlers and filters, and restore them afterwards."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    before = [(x.handlers, x.filters, x.level, x.propagate, x.disabled) for x in loggers]
    for logger in loggers:
        logger.handlers, logger.filters = [], []
    yield
    for logger, (handlers, filters, level, propagate, disabled) in zip(loggers, before, strict=True):
        logger.handlers, logger.filters = handlers, filters
        logger.propagate, logger.disabled = propagate, disabled
        logger.setLevel(level)


def configure(**settings: Any) -> tuple[logging.Logger, logging.Logger]:
    log_setup.configure(Settings(**settings))
    return logging.getLogger("ostler.error"), logging.getLogger("ostler.access")


def access(logger: logging.Logger, status: int = 200) -> None:
    logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:5000", "GET", "/a?b=%20", "1.1", status)


Captured = pytest.CaptureFixture[str]


def test_a_request_is_a_line_on_stdout_as_uvicorn_writes_it(capsys: Captured) -> None:
    _, requests = configure()

    access(requests)
    access(requests, 404)
    access(requests, 599)

    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        'INFO:     127.0.0.1:5000 - "GET /a?b=%20 HTTP/1.1" 200 OK',
        'INFO:     127.0.0.1:5000 - "GET /a?b=%20 HTTP/1.1" 404 Not Found',
        'INFO:     127.0.0.1:5000 - "GET /a?b=%20 HTTP/1.1" 599 ',
    ]
    assert captured.err == ""


def test_every_other_record_is_a_line_on_stderr_with_its_level(capsys: Captured) -> None:
    errors, _ = configure(log_level="trace")

    for level in (log_setup.TRACE, 10, 20, 30, 40, 50):
        errors.log(level, "so %s", "it is")
    logging.getLogger("ostler").info("this too")

    captured = capsys.readouterr()
    assert captured.err.splitlines() == [
        "TRACE:    so it is",
        "DEBUG:    so it is",
        "INFO:     so it is",
        "WARNING:  so it is",
        "ERROR:    so it is",
        "CRITICAL: so it is",
        "INFO:     this too",
    ]
    assert captured.out == ""


def test_an_error_has_its_traceback_below_it(capsys: Captured) -> None:
    errors, _ = configure()

    try:
        raise RuntimeError("boom")
    except RuntimeError:
        errors.exception("failed")

    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["ERROR:    failed", "Traceback (most recent call last):"]
    assert lines[-1] == "RuntimeError: boom"


def test_colours_are_those_of_uvicorn(capsys: Captured) -> None:
    errors, requests = configure(use_colors=True)

    errors.info("plain %d", 1, extra={"color_message": "bright %d"})
    access(requests, 404)

    captured = capsys.readouterr()
    assert captured.err == "\x1b[32mINFO\x1b[0m:     bright 1\n"
    assert captured.out == (
        "\x1b[32mINFO\x1b[0m:     127.0.0.1:5000 - "
        '"\x1b[1mGET /a?b=%20 HTTP/1.1\x1b[0m" \x1b[31m404 Not Found\x1b[0m\n'
    )


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_each_stream_decides_by_itself_whether_it_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, file = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", file)
    errors, requests = configure()

    errors.info("here")
    access(requests)

    assert "\x1b[" in terminal.getvalue()
    assert file.getvalue() == "INFO:     here\n"


@pytest.mark.parametrize("level", ["critical", "error", "warning", "info", "debug"])
def test_records_below_the_level_are_not_logged(level: str, capsys: Captured) -> None:
    errors, requests = configure(log_level=level)
    number = logging.getLevelName(level.upper())

    errors.log(number, "above")
    errors.log(number - 1, "below")

    assert capsys.readouterr().err.count("above") == 1
    assert requests.isEnabledFor(logging.INFO) == (number <= logging.INFO)


def test_without_access_log_its_logger_has_no_handler(capsys: Captured) -> None:
    _, requests = configure(access_log=False)

    access(requests)

    assert not requests.isEnabledFor(logging.INFO)
    assert not requests.handlers
    assert capsys.readouterr().out == ""


def test_configuring_again_replaces_our_handlers_and_keeps_others(capsys: Captured) -> None:
    theirs = logging.NullHandler()
    logging.getLogger("ostler").addHandler(theirs)
    configure(access_log=False, log_level="error")

    errors, requests = configure()
    errors.info("once")
    access(requests)

    captured = capsys.readouterr()
    assert captured.err == "INFO:     once\n"
    assert captured.out.count("\n") == 1
    assert theirs in logging.getLogger("ostler").handlers


def test_the_applications_root_logger_does_not_repeat_our_lines(capsys: Captured) -> None:
    root = logging.getLogger()
    handler = logging.StreamHandler(sys.stderr)
    root.addHandler(handler)
    try:
        errors, requests = configure()
        errors.info("once")
        access(requests)
    finally:
        root.removeHandler(handler)

    captured = capsys.readouterr()
    assert (captured.err.count("\n"), captured.out.count("\n")) == (1, 1)


def test_an_odd_record_on_the_access_logger_is_logged_as_it_is(capsys: Captured) -> None:
    _, requests = configure()

    requests.info("only %s", "this")
    requests.info("no arguments: 100 %")

    assert capsys.readouterr().out == "INFO:     only this\nINFO:     no arguments: 100 %\n"


# -- the loggers of the areas


@pytest.mark.parametrize("area", AREAS)
def test_what_an_area_logs_is_a_line_on_stderr_at_the_level_of_the_settings(
    area: str, capsys: Captured
) -> None:
    configure(log_level="warning")

    logging.getLogger(area).warning("heard")
    logging.getLogger(area).info("not heard")

    assert capsys.readouterr().err == "WARNING:  heard\n"


@pytest.mark.parametrize("area", AREAS)
def test_the_json_line_of_an_area_has_its_name(area: str, capsys: Captured) -> None:
    configure(log_format="json")

    logging.getLogger(area).info("serving")

    assert json.loads(capsys.readouterr().err)["logger"] == area


@pytest.mark.parametrize("area", AREAS)
def test_what_an_application_does_to_the_error_logger_counts_for_its_areas(
    area: str, capsys: Captured
) -> None:
    errors, _ = configure()
    logger = logging.getLogger(area)
    seen: list[str] = []
    handler = logging.Handler()
    vars(handler)["emit"] = lambda record: seen.append(record.getMessage())
    errors.addHandler(handler)

    errors.addFilter(lambda record: "secret" not in record.getMessage())
    logger.info("a secret")
    logger.info("said")
    errors.setLevel(logging.ERROR)
    logger.info("below the level")
    errors.disabled = True
    logger.critical("disabled")

    assert seen == ["said"]
    assert capsys.readouterr().err == "INFO:     said\n"


def test_an_embedded_server_that_configures_no_logging_still_links_the_areas() -> None:
    log_setup.link_areas()
    log_setup.link_areas()

    assert all(len(logging.getLogger(area).filters) == 1 for area in AREAS)


# -- a log that cannot be written, in a process of its own


def python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    prelude = (
        "import io, logging, os, sys\nfrom ostler import Settings\nfrom ostler.logging import setup\n"
        "access = logging.getLogger('ostler.access')\n"
        "def request(): access.info('%s - %s %s %s %d', 'client', 'GET', '/', '1.1', 200)\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code], stderr=subprocess.PIPE, text=True, check=False, **options
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_loses_lines_and_does_no_other_harm() -> None:
    with open("/dev/full", "w") as full:
        done = python("setup.configure(Settings())\nfor _ in range(9999): request()", stdout=full)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_pipe_loses_lines_and_does_no_other_harm() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = python("setup.configure(Settings())\nfor _ in range(9999): request()", stdout=writer)
    os.close(writer)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_descriptor_loses_lines_and_does_no_other_harm() -> None:
    code = "os.close(1)\nsetup.configure(Settings())\nrequest()\nos.dup2(2, 1)"
    started_without = "sys.stdout = None\nsetup.configure(Settings())\nrequest()"
    closed = "sys.stdout.close()\nsetup.configure(Settings())\nrequest()"

    for done in (python(code), python(started_without), python(closed)):
        assert (done.returncode, done.stderr) == (0, "")


def test_the_number_of_lost_lines_is_logged_when_there_is_room_again() -> None:
    code = (
        "reader, writer = os.pipe()\n"
        "os.set_blocking(writer, False)\n"
        "sys.stdout = open(writer, 'w')\n"
        "setup.configure(Settings())\n"
        "room = 0\n"
        "try:\n"
        "    while True: room += os.write(writer, bytes(4096))\n"
        "except BlockingIOError: pass\n"
        "request(); request()\n"
        "while room: room -= len(os.read(reader, room))\n"
        "request(); request()\n"
        "sys.stderr.write(os.read(reader, 65536).decode())\n"
    )

    lines = python(code).stderr.splitlines()

    assert lines[0].startswith("WARNING:  2 log lines were lost: nobody reads the log")
    assert lines[1:] == ['INFO:     client - "GET / HTTP/1.1" 200 OK'] * 2


def test_a_signal_handler_may_log_while_a_line_waits_for_its_reader() -> None:
    code = (
        "import signal\n"
        "reader, writer = os.pipe()\n"
        "os.set_blocking(writer, False)\n"
        "sys.stdout = open(writer, 'w')\n"
        "setup.configure(Settings())\n"
        "try:\n"
        "    while True: os.write(writer, bytes(4096))\n"
        "except BlockingIOError: pass\n"
        "came = []\n"
        "signal.signal(signal.SIGALRM, lambda *_: (came.append(1), request()))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "request()\n"
        "sys.exit(0 if came else 'no signal came')\n"
    )

    done = python(code)

    assert (done.returncode, done.stderr) == (0, "")


def test_what_the_application_prints_keeps_its_place_among_the_lines() -> None:
    done = python(
        "setup.configure(Settings())\nprint('before')\nrequest()\nprint('after')", stdout=subprocess.PIPE
    )

    assert [line[:6] for line in done.stdout.splitlines()] == ["before", "INFO: ", "after"]


def test_a_character_that_the_stream_cannot_encode_is_escaped() -> None:
    done = python(
        "setup.configure(Settings())\naccess.warning('caf\\u00e9 \\udcff')",
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )

    assert done.stdout == "WARNING:  caf\\xe9 \\udcff\n"


def test_an_error_in_formatting_does_not_reach_the_caller(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", False)  # as in production; else logging prints it
    errors, _ = configure()

    errors.info("%d", "no number")

    assert capsys.readouterr().err == ""


# -- SIGUSR1


@pytest.fixture
def file_logger(tmp_path: Path) -> Iterator[logging.Logger]:
    logger = logging.getLogger("tests.reopened")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    yield logger
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.mark.parametrize("mode", ["a", "w"])
def test_a_file_that_was_moved_away_is_created_again_at_the_next_record(
    mode: str, file_logger: logging.Logger, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    file_logger.addHandler(logging.FileHandler(path, mode=mode))
    file_logger.info("one")
    path.rename(tmp_path / "log.1")
    file_logger.info("two")

    log_setup.reopen()
    assert not path.exists()
    file_logger.info("three")

    assert (tmp_path / "log.1").read_text() == "one\ntwo\n"
    assert path.read_text() == "three\n"


@pytest.mark.parametrize("mode", ["a", "w", "x"])
def test_a_file_that_was_not_moved_away_keeps_its_content(
    mode: str, file_logger: logging.Logger, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    file_logger.addHandler(logging.FileHandler(path, mode=mode))
    file_logger.info("one")

    log_setup.reopen()
    log_setup.reopen()
    file_logger.info("two")

    assert path.read_text() == "one\ntwo\n"


def test_file_handlers_of_every_kind_are_found(file_logger: logging.Logger, tmp_path: Path) -> None:
    handlers: list[logging.FileHandler] = [
        logging.FileHandler(tmp_path / "plain"),
        logging.handlers.RotatingFileHandler(tmp_path / "rotating", maxBytes=100),
        logging.handlers.WatchedFileHandler(tmp_path / "watched"),
        logging.FileHandler(tmp_path / "late", delay=True),
        logging.FileHandler(tmp_path / "buffered"),
        logging.FileHandler(tmp_path / "queued"),
    ]
    for handler in handlers[:4]:
        file_logger.addHandler(handler)
    buffering = logging.handlers.MemoryHandler(10, target=handlers[4])
    queueing = logging.handlers.QueueHandler(queue.Queue())
    # As logging.config.dictConfig does from Python 3.12 on.
    vars(queueing)["listener"] = logging.handlers.QueueListener(queueing.queue, handlers[5])
    file_logger.addHandler(buffering)
    file_logger.addHandler(queueing)

    log_setup.reopen()

    assert [handler.stream for handler in handlers] == [None] * 6
    file_logger.info("on we go")
    assert all((tmp_path / name).read_text() == "on we go\n" for name in ("plain", "rotating", "watched"))
    file_logger.removeHandler(buffering)
    buffering.close()
    handlers[4].close()
    assert (tmp_path / "buffered").read_text() == "on we go\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_does_not_keep_a_file_from_being_reopened(file_logger: logging.Logger) -> None:
    handler = logging.FileHandler("/dev/full")
    assert handler.stream is not None
    handler.stream.write("stuck in the buffer")
    file_logger.addHandler(handler)

    log_setup.reopen()

    assert handler.stream is None
