"""The formatters and the handler that a log configuration may name, one record at a time."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import queue
import sys
import threading
from logging.handlers import QueueHandler
from typing import Any

import pytest

from ostler.logging import ACCESS_FORMAT, AccessFormatter, DefaultFormatter, JsonFormatter, LineHandler

ARGS = ("127.0.0.1:5000", "GET", "/a?b=%20", "1.1", 404)


def record(message: object = "so it is", *args: object, name: str = "ostler.error", **more: Any) -> Any:
    made = logging.makeLogRecord(
        {"name": name, "msg": message, "args": args, "levelname": "INFO", "levelno": 20}
    )
    vars(made).update(more)
    return made


def request(*args: object, **more: Any) -> Any:
    return record('%s - "%s %s HTTP/%s" %d', *(args or ARGS), name="ostler.access", **more)


# -- text


def test_uvicorns_fields_can_be_put_in_any_order() -> None:
    formatter = AccessFormatter("%(status_code)s|%(request_line)s|%(client_addr)s|%(levelprefix)s|%(name)s")

    assert (
        formatter.format(request())
        == "404 Not Found|GET /a?b=%20 HTTP/1.1|127.0.0.1:5000|INFO:    |ostler.access"
    )


def test_other_styles_and_date_formats_work_as_in_logging() -> None:
    shown = DefaultFormatter("{asctime} {levelprefix} {message}", "%Y", "{").format(record(created=0.0))

    assert shown.endswith(" INFO:     so it is")
    assert shown[:4] in ("1969", "1970")


def test_duration_and_length_can_be_added_to_uvicorns_format() -> None:
    formatter = AccessFormatter(f"{ACCESS_FORMAT} %(request_time).3f %(response_length)d")

    assert formatter.wants_completion
    assert not AccessFormatter(ACCESS_FORMAT).wants_completion
    line = formatter.format(request(request_time=0.25, response_length=7))
    assert line == 'INFO:     127.0.0.1:5000 - "GET /a?b=%20 HTTP/1.1" 404 Not Found 0.250 7'
    assert formatter.format(request()).endswith("0.000 0")  # without them: another program has logged it


@pytest.mark.parametrize("fmt", [ACCESS_FORMAT, "%(request_line)s %(status_code)s %(client_addr)s", None])
def test_a_record_with_other_arguments_is_formatted_as_it_is(fmt: str | None) -> None:
    for odd in (
        record("only %s", "this", name="ostler.access"),
        record("no arguments", name="ostler.access"),
    ):
        assert AccessFormatter(fmt).format(odd).replace("INFO:     ", "").startswith(odd.getMessage())


def test_a_formatter_changes_nothing_about_the_record() -> None:
    made = request()
    before = dict(vars(made))

    AccessFormatter("%(client_addr)s %(levelprefix)s").format(made)

    assert {k: v for k, v in vars(made).items() if k != "message"} == before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_depend_on_the_stream_of_the_handler() -> None:
    undecided = DefaultFormatter("%(levelprefix)s %(message)s")

    assert "\x1b[" in undecided.decided_for(Terminal()).format(record())
    assert "\x1b[" not in undecided.decided_for(io.StringIO()).format(record())
    assert "\x1b[" not in undecided.decided_for(None).format(record())
    asked = DefaultFormatter("%(levelprefix)s", use_colors=True)
    assert "\x1b[" in asked.decided_for(io.StringIO()).format(record())


# -- JSON


def parsed(made: Any, **options: Any) -> dict[str, Any]:
    line = JsonFormatter(**options).format(made)
    assert "\n" not in line
    assert line.isascii()
    found: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    json.dumps(found, ensure_ascii=False).encode()  # no lone surrogate
    return found


def test_a_record_is_one_object() -> None:
    assert parsed(record("so %s", "it is", created=1_700_000_000.0078, process=7), slot=2) == {
        "time": "2023-11-14T22:13:20.007Z",
        "level": "INFO",
        "logger": "ostler.error",
        "message": "so it is",
        "slot": 2,
        "pid": 7,
    }


def test_a_request_has_a_member_for_each_of_its_parts() -> None:
    found = parsed(request(request_time=0.25, response_length=7, user_agent=None))

    assert found["message"] == '127.0.0.1:5000 - "GET /a?b=%20 HTTP/1.1" 404'
    wanted = {
        "client": "127.0.0.1:5000",
        "method": "GET",
        "path": "/a",
        "query": "b=%20",
        "http_version": "1.1",
        "status": 404,
        "request_time": 0.25,
        "response_length": 7,
        "user_agent": None,
    }
    assert {name: found.get(name) for name in wanted} == wanted


def test_an_exception_is_one_member_with_line_feeds() -> None:
    try:
        raise RuntimeError('bo"om\n\udcff')
    except RuntimeError:
        found = parsed(record("failed\n", exc_info=sys.exc_info(), stack_info="Stack:\n  here"))

    assert found["message"] == "failed\n"
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith('RuntimeError: bo"om\n\\udcff')
    assert found["stack"] == "Stack:\n  here"


@pytest.mark.parametrize(
    "text", ['"', "\\", "\x00\x1b\r\n\t\x7f\x85", "\u2028", "\U0001f40e", "caf\xe9", "'"]
)
def test_any_text_is_preserved(text: str) -> None:
    assert parsed(record("%s", text))["message"] == text
    assert parsed(record("m", thing=text, list=[text, {text: text}]))["list"] == [text, {text: text}]


def test_lone_surrogates_are_written_as_text() -> None:
    assert parsed(record("\udcff\ud83d.\ude00"))["message"] == "\\udcff\\ud83d.\\ude00"
    assert parsed(record("m", thing=["\udcff"]))["thing"] == ["\\udcff"]


class Hostile:
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


def test_extra_fields_of_any_type_are_members() -> None:
    circular: list[object] = []
    circular.append(circular)
    extra: dict[str, Any] = {
        "number": 1, "flag": True, "nothing": None, "inner": {"a": 1.5}, "nan": math.nan, "inf": [math.inf],
        "circular": circular, "odd": {(1, 2): 3}, "object": math, "hostile": Hostile(), "status": "theirs",
        "color_message": "left out",
    }  # fmt: skip

    found = parsed(record("m", **extra))

    assert (found["number"], found["flag"], found["nothing"]) == (1, True, None)
    assert found["inner"] == {"a": 1.5}
    assert (found["nan"], found["inf"]) == ("nan", "[inf]")
    assert found["circular"] == "[[...]]"
    assert found["odd"] == "{(1, 2): 3}"
    assert found["object"].startswith("<module 'math'")
    assert found["hostile"] == "<Hostile>"
    assert not {"status", "color_message"} & set(found)


def test_a_message_that_cannot_be_formatted_is_written_in_parts() -> None:
    assert parsed(record("%d", "no number"))["message"] == "'%d' % ('no number',)"
    assert parsed(record("%s", Hostile()))["message"] == "'%s' % <tuple>"


def test_the_time_is_right_in_every_second() -> None:
    formatter = JsonFormatter()
    times = [json.loads(formatter.format(record(created=c)))["time"] for c in (0.9999, 1.0, 61.5)]

    assert times == ["1970-01-01T00:00:00.999Z", "1970-01-01T00:00:01.000Z", "1970-01-01T00:01:01.500Z"]


def test_the_slot_is_known_from_the_environment_in_a_log_configuration(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OSTLER_SLOT", "3")

    assert parsed(record())["slot"] == 3
    monkeypatch.delenv("OSTLER_SLOT")
    assert parsed(record())["slot"] is None


def test_a_record_that_went_through_a_queue_is_still_an_object() -> None:
    passed: queue.Queue[Any] = queue.Queue()
    handler = QueueHandler(passed)
    handler.emit(request(request_time=0.25))

    found = parsed(passed.get())

    assert found["message"] == '127.0.0.1:5000 - "GET /a?b=%20 HTTP/1.1" 404'
    assert found["request_time"] == 0.25


# -- lines of several writers on one pipe


def test_long_lines_of_several_writers_do_not_mix_while_there_is_room() -> None:
    reader, writer = os.pipe()
    seen: list[str] = []
    # A pipe holds 64 KiB: half of that stays free, so that no writer has to wait in the middle of a line.
    permits = threading.Semaphore(2)

    def read() -> None:
        with open(reader) as lines:
            for line in lines:
                seen.append(line)
                permits.release()

    def write(letter: str) -> None:
        # As processes do: each with a stream and a handler of its own.
        with open(os.dup(writer), "w") as stream:
            handler = LineHandler(stream)
            for _ in range(50):
                permits.acquire()
                handler.emit(record(letter * 16_000))

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abc"]
    reading = threading.Thread(target=read)
    for thread in (*threads, reading):
        thread.start()
    for thread in threads:
        thread.join()
    os.close(writer)
    reading.join()

    assert len(seen) == 150
    assert all(line == line[0] * 16_000 + "\n" for line in seen)


def test_a_slow_reader_gets_a_long_line_complete() -> None:
    reader, writer = os.pipe()
    seen: list[str] = []

    def read() -> None:
        with open(reader) as lines:
            seen.extend(lines)

    thread = threading.Thread(target=read)
    thread.start()
    with open(writer, "w") as stream:
        LineHandler(stream).emit(record("x" * 1_000_000))
    thread.join()

    assert seen == ["x" * 1_000_000 + "\n"]
