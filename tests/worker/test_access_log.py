"""The access log as ostler sets it up: the same lines as through logging, at a fraction of the cost."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, cast

import pytest

from ostler.logging import ACCESS_FORMAT, AccessFormatter
from ostler.logging import setup as log_setup
from ostler.logging.line_handler import LineHandler
from ostler.settings.declarations import Settings
from ostler.worker.access_log import AccessLog, arguments


class Rounds:
    """A loop that runs a round only when the test calls `turn`."""

    def __init__(self) -> None:
        self.called: list[Callable[[], None]] = []
        self.closed = False

    def call_soon(self, callback: Callable[[], None]) -> None:
        if self.closed:
            raise RuntimeError("Event loop is closed")
        self.called.append(callback)

    def turn(self) -> None:
        called, self.called = self.called, []
        for callback in called:
            callback()


class Written(io.StringIO):
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, text: str) -> int:
        self.pieces.append(text)
        return super().write(text)


class Usual:
    """Our own handler and formatter on the logger, as `ostler.logging.setup.configure` puts them there."""

    def __init__(self, colours: bool = False, stream: Any = None) -> None:
        self.stream = Written() if stream is None else stream
        self.logger = logging.getLogger("ostler.access")
        self.handler = LineHandler(self.stream)
        self.formatter = AccessFormatter(ACCESS_FORMAT, use_colors=colours)
        self.handler.setFormatter(self.formatter)
        self.logger.handlers = [self.handler]
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)
        self.loop = Rounds()
        self.log = AccessLog(cast("Any", self.loop)).log

    def defers(self) -> bool:
        return bool(self.handler.waiting)

    def expected(self, scope: dict[str, Any], status: int) -> str:
        args = arguments(scope, status)
        record = logging.LogRecord(
            "ostler.access", logging.INFO, "", 0, '%s - "%s %s HTTP/%s" %d', args, None
        )
        return self.formatter.format(record) + "\n"


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    kept = {}
    for name in ("ostler", "ostler.access"):
        logger = logging.getLogger(name)
        kept[logger] = (list(logger.handlers), list(logger.filters), logger.propagate, logger.level)
    yield
    for logger, (handlers, filters, propagate, level) in kept.items():
        logger.handlers, logger.filters, logger.propagate = handlers, filters, propagate
        logger.setLevel(level)
        for handler in handlers:
            if isinstance(handler, LineHandler):
                handler.before = None


def scope(path: str = "/", query: bytes = b"", **other: Any) -> dict[str, Any]:
    base = {"client": ("127.0.0.1", 5000), "method": "GET", "http_version": "1.1"}
    return {**base, "path": path, "query_string": query, **other}


SCOPES = [
    scope(),
    scope("/a b%\n", b"c=%20&d=%s%%"),
    scope("/\0{}é", b"{}"),
    scope("/" + "x" * 5000),
    scope(client=None),
    scope(client=("::1", 0), method="DELETE", http_version="1.0"),
    scope("/\U0001f40e", client=("203.0.113.7", 80)),
]


@pytest.mark.parametrize("colours", [False, True])
def test_a_line_has_the_bytes_that_logging_would_write(colours: bool) -> None:
    usual = Usual(colours)
    wanted = ""
    for _ in range(2):  # what is known, too
        for asked in SCOPES:
            for status in (200, 204, 301, 404, 500, 299, 599, HTTPStatus.ACCEPTED):
                usual.log(asked, status)
                wanted += usual.expected(asked, status)
    usual.loop.turn()

    assert usual.stream.getvalue() == wanted


def test_the_lines_of_one_round_are_one_write() -> None:
    usual = Usual()
    for number in range(20):
        usual.log(scope(f"/{number}"), 200)
    assert usual.stream.pieces == []
    assert len(usual.loop.called) == 1
    usual.loop.turn()
    assert len(usual.stream.pieces) == 1
    assert usual.stream.getvalue().count("\n") == 20
    usual.log(scope("/next"), 200)
    usual.loop.turn()
    assert len(usual.stream.pieces) == 2


def test_the_caches_are_bounded() -> None:
    usual = Usual()
    for number in range(3000):
        usual.log(scope(f"/{number}", client=("127.0.0.1", number)), 100 + number % 900)
        usual.loop.turn()
    log = cast("Any", usual.log).__self__
    assert max(len(log._beginnings), len(log._ends), len(log._frames)) <= 1024
    usual.log(scope("/" + "x" * 60_000), 200)
    assert max(map(len, log._ends.values())) < 400


def _handler(usual: Usual) -> None:
    usual.logger.addHandler(logging.NullHandler())


def _filter(usual: Usual) -> None:
    usual.logger.addFilter(lambda record: True)


def _handlers_filter(usual: Usual) -> None:
    usual.handler.addFilter(lambda record: True)


def _propagate(usual: Usual) -> None:
    usual.logger.propagate = True


def _formatter(usual: Usual) -> None:
    usual.handler.setFormatter(AccessFormatter("%(client_addr)s"))


def _level(usual: Usual) -> None:
    usual.logger.setLevel(logging.WARNING)


def _handlers_level(usual: Usual) -> None:
    usual.handler.setLevel(logging.WARNING)


def _none(usual: Usual) -> None:
    usual.logger.handlers = []


def _loop(usual: Usual) -> None:
    usual.loop.closed = True


@pytest.mark.parametrize(
    "change",
    [_handler, _filter, _handlers_filter, _propagate, _formatter, _level, _handlers_level, _none, _loop],
)
def test_if_an_application_changes_the_logger_lines_are_records_again(
    change: Callable[[Usual], None],
) -> None:
    usual = Usual()
    usual.log(scope("/before"), 200)
    assert usual.defers()
    change(usual)
    usual.loop.turn()
    usual.log(scope("/after"), 200)
    assert not usual.defers()
    assert usual.stream.getvalue().startswith('INFO:     127.0.0.1:5000 - "GET /before HTTP/1.1" 200 OK\n')


def test_filters_see_the_arguments_and_may_drop_a_line() -> None:
    usual = Usual()
    usual.logger.addFilter(lambda record: record.args[2] != "/health")  # type: ignore[index]
    usual.log(scope("/health"), 200)
    usual.log(scope("/shown"), 200)
    assert usual.stream.getvalue() == usual.expected(scope("/shown"), 200)


def test_a_factory_of_records_is_used() -> None:
    usual = Usual()
    seen = []

    def factory(*args: Any, **more: Any) -> logging.LogRecord:
        seen.append(args)
        return logging.LogRecord(*args, **more)

    logging.setLogRecordFactory(factory)
    try:
        usual.log(scope(), 200)
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    assert usual.stream.getvalue() == usual.expected(scope(), 200)
    assert len(seen) >= 1


def test_a_replacement_of_loggings_methods_sees_every_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = Usual()
    seen = []
    genuine = logging.Logger.callHandlers

    def spy(self: logging.Logger, record: logging.LogRecord) -> None:
        seen.append(record.args)
        genuine(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", spy)
    usual.log(scope(), 200)
    assert seen == [("127.0.0.1:5000", "GET", "/", "1.1", 200)]
    monkeypatch.undo()
    usual.log(scope(), 200)
    assert usual.defers()


def test_a_renamed_level_is_shown_by_its_new_name() -> None:
    usual = Usual()
    usual.log(scope(), 200)
    usual.loop.turn()
    logging.addLevelName(logging.INFO, "NOTE")
    try:
        usual.log(scope(), 200)
        usual.loop.turn()
    finally:
        logging.addLevelName(logging.INFO, "INFO")
    assert [line[:5] for line in usual.stream.getvalue().splitlines()] == ["INFO:", "NOTE:"]


def test_a_scope_with_a_list_in_it_is_logged_as_well() -> None:
    usual = Usual()
    usual.log(scope(client=["198.51.100.1", 7]), 200)
    assert usual.stream.getvalue() == usual.expected(scope(client=("198.51.100.1", 7)), 200)


def test_two_servers_in_one_process_share_the_handler() -> None:
    first = Usual()
    second = Rounds()
    log = AccessLog(cast("Any", second)).log
    first.log(scope("/first"), 200)
    log(scope("/second"), 200)
    first.loop.turn()
    log(scope("/third"), 200)
    second.turn()
    assert first.stream.getvalue().count("\n") == 3
    assert not first.defers()


def test_an_error_comes_after_the_lines_that_are_older() -> None:
    program = (
        "import os, sys, logging\n"
        "os.dup2(1, 2)\n"
        "from ostler.logging import setup as logs\n"
        "from ostler.settings.declarations import Settings\n"
        "from ostler.worker.access_log import AccessLog\n"
        "logs.configure(Settings(app='a:b'))\n"
        "class Loop:\n"
        "    def call_soon(self, callback): pass\n"
        "log = AccessLog(Loop()).log\n"
        "scope = {'client': None, 'method': 'GET', 'path': '/', 'query_string': b'', 'http_version': '1.1'}\n"
        "log(scope, 200)\n"
        "logging.getLogger('ostler.error').error('bad')\n"
        "log(scope, 500)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # The last line waits for a round that never comes, and is written as the interpreter exits.
    assert done.stdout.splitlines() == [
        'INFO:      - "GET / HTTP/1.1" 200 OK',
        "ERROR:    bad",
        'INFO:      - "GET / HTTP/1.1" 500 Internal Server Error',
    ]


def test_flush_writes_what_waits() -> None:
    usual = Usual()
    usual.log(scope(), 200)
    log_setup.flush()
    assert usual.stream.getvalue() == usual.expected(scope(), 200)
    usual.loop.turn()
    assert usual.stream.getvalue() == usual.expected(scope(), 200)


# The test's own process has threads of pytest-xdist.
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_copy_that_the_application_forks_does_not_write_them_again() -> None:
    reader, writer = os.pipe()
    with open(reader) as lines, open(writer, "w") as stream:
        usual = Usual(stream=stream)
        usual.log(scope("/waiting"), 200)
        child = os.fork()
        if child == 0:
            try:
                usual.handler.flush()
                usual.log(scope("/childs"), 200)
                usual.handler.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        usual.loop.turn()
        stream.close()
        assert [line.split()[4] for line in lines] == ["/childs", "/waiting"]


def test_many_lines_reach_a_pipe_in_pieces_that_stay_whole_among_those_of_other_writers() -> None:
    reader, writer = os.pipe()
    seen: list[str] = []

    def read() -> None:
        with open(reader) as lines:
            seen.extend(lines)

    def write(letter: str) -> None:
        with open(os.dup(writer), "w") as stream:
            handler = LineHandler(stream)
            for _ in range(30):
                handler.waiting += [letter * (40 + number) + "\n" for number in range(200)]
                handler.flush()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    reading = threading.Thread(target=read)
    for thread in (*threads, reading):
        thread.start()
    for thread in threads:
        thread.join()
    os.close(writer)
    reading.join()
    assert len(seen) == 3 * 30 * 200
    assert all(line == line[0] * (len(line) - 1) + "\n" for line in seen)


def test_lines_without_a_reader_are_counted_one_by_one() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader, "rb", buffering=0) as pipe, open(writer, "w") as stream:
        usual = Usual(stream=stream)
        line = usual.expected(scope(), 200)
        room = os.write(writer, b"\n" * (1 << 20))  # as much as there is room for
        for _ in range(200):
            usual.log(scope(), 200)
        usual.loop.turn()
        pipe.read(room)
        usual.log(scope(), 200)
        usual.loop.turn()
        assert pipe.read(room).decode() == (
            "WARNING:  200 log lines were lost: nobody reads the log\n" + line
        )


def test_a_signal_handler_that_logs_during_a_flush_neither_doubles_nor_loses_a_line() -> None:
    class Interrupted(Written):
        handler: LineHandler | None = None

        def flush(self) -> None:
            handler, self.handler = self.handler, None
            if handler is not None:  # as if a signal came just now
                handler.waiting.append("late\n")
                handler.flush()

    stream = Interrupted()
    handler = stream.handler = LineHandler(stream)
    handler.waiting += ["one\n", "two\n"]
    handler.flush()
    assert stream.getvalue() == "one\ntwo\nlate\n"


def test_as_set_up_by_ostler_lines_wait_and_with_another_format_they_do_not() -> None:
    for settings, usual in (
        (Settings(app="a:b"), True),
        (Settings(app="a:b", use_colors=True), True),
        (Settings(app="a:b", log_format="json"), False),
        (Settings(app="a:b", log_level="warning"), False),
    ):
        logging.getLogger("ostler.access").handlers = []
        logging.getLogger("ostler").handlers = []
        log_setup.configure(settings)
        loop = Rounds()
        AccessLog(cast("Any", loop)).log(scope(), 200)
        assert bool(loop.called) is usual
        [handler] = logging.getLogger("ostler.access").handlers
        cast("LineHandler", handler).waiting.clear()
