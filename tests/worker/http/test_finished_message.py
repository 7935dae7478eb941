"""Log messages that are finished lines, and the arguments beside them."""

from __future__ import annotations

import logging

from ostler.worker.http.finished_message import message_with_arguments


class PlainLogger(logging.Logger):
    """A logger whose records format their message otherwise than CPython's `LogRecord` does."""

    def makeRecord(self, *args: object, **options: object) -> logging.LogRecord:
        return BraceRecord(*args, **options)  # type: ignore[arg-type]


class BraceRecord(logging.LogRecord):
    def getMessage(self) -> str:
        return str.format(str(self.msg), *self.args) if self.args else str(self.msg)


def test_a_finished_line_is_the_message_and_the_arguments_stay() -> None:
    logger = logging.Logger("finished")
    message, args = message_with_arguments(logger)("100% {of} it", ("a", "b"))
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, args, None)
    assert record.getMessage() == "100% {of} it"
    assert record.args == ("a", "b")


def test_where_records_format_otherwise_the_line_is_kept_without_its_arguments() -> None:
    logger = PlainLogger("finished")
    message, args = message_with_arguments(logger)("100% {of} it", ("a", "b"))
    record = logger.makeRecord(logger.name, logging.INFO, __file__, 0, message, args, None)
    assert record.getMessage() == "100% {of} it"
    assert not record.args
