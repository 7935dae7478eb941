"""Log formatting and set-up, for both kinds of process, in uvicorn's text formats.

`ostler` and `ostler.error` go to stderr, `ostler.access` to stdout. A log that cannot be written costs
lines, never a request: the lines are counted, and the count is logged once writing works again.
"""

from __future__ import annotations

import logging
import os
import select
import sys
from collections.abc import Iterator
from typing import TextIO

from ostler.settings import Settings

TRACE = 5
"""Below DEBUG, as in uvicorn: every ASGI message."""

_LEVEL_COLOURS = {TRACE: 34, logging.DEBUG: 36, logging.INFO: 32, logging.WARNING: 33, logging.ERROR: 31}
_CRITICAL_COLOUR = 91
_STATUS_COLOURS = {1: 97, 2: 32, 3: 33, 4: 31, 5: 91}
_BOLD = 1

# A pipe that is writable has room for that much (pipe(7), PIPE_BUF).
_ROOM = 4096
_PATIENCE = 1000
"""Milliseconds that a line waits for a reader before it is given up."""


def configure(settings: Settings) -> None:
    """Set up the three loggers; what an earlier call has set up is replaced, other handlers stay."""
    logging.addLevelName(TRACE, "TRACE")
    level = TRACE if settings.log_level == "trace" else logging.getLevelName(settings.log_level.upper())
    general = logging.getLogger("ostler")
    access = logging.getLogger("ostler.access")
    for logger in (general, access):
        for handler in [h for h in logger.handlers if isinstance(h, LineHandler)]:
            logger.removeHandler(handler)
        logger.setLevel(level)
        # The application's own root logger would write every line a second time.
        logger.propagate = False
    general.addHandler(_handler(sys.stderr, Formatter, settings.use_colors))
    access.disabled = not settings.access_log
    if settings.access_log:
        access.addHandler(_handler(sys.stdout, AccessFormatter, settings.use_colors))


def reopen() -> None:
    """Let every file handler of every logger open its file anew at its next record (SIGUSR1).

    So that logrotate can move a file away and have a new one written to. Nothing is truncated.
    """
    for handler in _file_handlers():
        handler.acquire()
        try:
            stream, handler.stream = handler.stream, None  # emit() opens it
            # Where nothing was moved away, opening with "w" once more would wipe what is there.
            handler.mode = handler.mode.replace("w", "a").replace("x", "a")
            if stream is not None:
                stream.close()
        except (OSError, RuntimeError):
            # A full disk refused the last buffered bytes, or a signal came amid a write to this very
            # stream, which then goes on to the old file. The next record opens the new one all the same.
            pass
        finally:
            handler.release()


def _file_handlers() -> Iterator[logging.FileHandler]:
    root = logging.getLogger()
    # A copy: another thread may make a logger meanwhile.
    loggers = [root, *(x for x in list(root.manager.loggerDict.values()) if isinstance(x, logging.Logger))]
    pending = [handler for logger in loggers for handler in logger.handlers]
    seen: set[int] = set()
    while pending:
        handler = pending.pop()
        if id(handler) in seen:
            continue
        seen.add(id(handler))
        if isinstance(handler, logging.FileHandler):
            yield handler
        # A MemoryHandler wraps another one; a QueueHandler set up by dictConfig has its listener.
        target = getattr(handler, "target", None)
        pending += [target] if isinstance(target, logging.Handler) else []
        pending += getattr(getattr(handler, "listener", None), "handlers", ())


class Formatter(logging.Formatter):
    """`INFO:     message`, the level coloured on request, and the traceback below."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__()
        self.colours = colours

    def formatMessage(self, record: logging.LogRecord) -> str:
        message = record.message
        if self.colours:
            # uvicorn's libraries pass a second wording, with colours in it, by this name.
            coloured = getattr(record, "color_message", None)
            if coloured is not None:
                message = str(coloured) % record.args if record.args else str(coloured)
        return f"{self.prefix(record)} {message}"

    def prefix(self, record: logging.LogRecord) -> str:
        """The level with its colon, as wide as the widest."""
        name = record.levelname
        shown = _styled(name, _LEVEL_COLOURS.get(record.levelno, _CRITICAL_COLOUR)) if self.colours else name
        return f"{shown}:{' ' * (8 - len(name))}"


class AccessFormatter(Formatter):
    """`INFO:     127.0.0.1:5000 - "GET / HTTP/1.1" 200 OK`, from a record whose args are these five."""

    def __init__(self, *, colours: bool) -> None:
        super().__init__(colours=colours)
        self._phrases: dict[int, str] = {}

    def formatMessage(self, record: logging.LogRecord) -> str:
        match record.args:
            case (client, method, path, version, int() as status):
                line = f"{method} {path} HTTP/{version}"
                outcome = f"{status} {self._phrase(status)}"
                if self.colours:
                    line = _styled(line, _BOLD)
                    outcome = _styled(outcome, _STATUS_COLOURS.get(status // 100, _BOLD))
                return f'{self.prefix(record)} {client} - "{line}" {outcome}'
        return super().formatMessage(record)

    def _phrase(self, status: int) -> str:
        if not self._phrases:
            from http import HTTPStatus  # 1 MB, which the arbiter has no use for

            self._phrases.update((known.value, known.phrase) for known in HTTPStatus)
        return self._phrases.get(status, "")


class LineHandler(logging.Handler):
    """Writes each record at once, with a single write(2), so that processes do not mix up their lines.

    Not through the stream's buffer: what a full disk or a closed pipe refuses would stay in there, fail
    again with every later line, and turn the exit code into 120 when the interpreter flushes it at last.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        self._stream = stream
        self._lost = 0
        self._why = ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001  # whatever an argument's __str__ raises; logging's own way
            self.handleError(record)
            return
        if self._stream is None:  # started with the descriptor closed, as daemons are
            return
        try:
            self._write(self._stream, self._confession() + line)
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            self._lost += 1
            self._why = str(error)
        else:
            self._lost = 0

    def _confession(self) -> str:
        if not self._lost:
            return ""
        lines = "1 log line was" if self._lost == 1 else f"{self._lost} log lines were"
        record = logging.LogRecord("ostler", logging.WARNING, "", 0, f"{lines} lost: {self._why}", (), None)
        return self.format(record) + "\n"

    def _write(self, stream: TextIO, text: str) -> None:
        # What the application has printed goes out first and with the log, as people expect to see it.
        stream.flush()
        try:
            descriptor = stream.fileno()
        except (OSError, AttributeError):  # io.UnsupportedOperation: a StringIO or the like
            stream.write(text)
            stream.flush()
            return
        data = text.encode(stream.encoding or "utf-8", "backslashreplace")
        while data:
            if not self._room(descriptor):
                raise OSError("nobody reads the log")
            # Short writes happen: a disk that fills up midway, a pipe set non-blocking by its other owner.
            data = data[os.write(descriptor, data[:_ROOM]) :]

    def _room(self, descriptor: int) -> bool:
        """Whether so much can be written without waiting: a log that nobody reads must not stop a server."""
        poll = select.poll()
        poll.register(descriptor, select.POLLOUT)
        # One line that was lost is patience enough with a reader.
        return bool(poll.poll(0 if self._lost else _PATIENCE))


def _handler(stream: TextIO | None, formatter: type[Formatter], use_colors: bool | None) -> LineHandler:
    handler = LineHandler(stream)
    handler.setFormatter(formatter(colours=_is_terminal(stream) if use_colors is None else use_colors))
    return handler


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


def _styled(text: str, code: int) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"
