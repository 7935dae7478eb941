"""Log set-up, for both kinds of process: in uvicorn's text formats, as JSON, or as a log configuration says.

`ostler` and `ostler.error` go to stderr, `ostler.access` to stdout. A log that cannot be written costs
lines, never a request: the lines are counted, and the count is logged once writing works again.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator

from ostler.errors import SettingsError
from ostler.logging.formatters import (
    ACCESS_FORMAT,
    ACCESS_LOGGER,
    DEFAULT_FORMAT,
    TRACE,
    AccessFormatter,
    DefaultFormatter,
    JsonFormatter,
    LineHandler,
)
from ostler.settings.declarations import Settings

__all__ = ["TRACE", "at_completion", "configure", "flush", "reconfigure", "reopen", "revive", "structured"]

LOGGERS = ("ostler", "ostler.error", "ostler.access", "ostler.asgi")
_CANARY = "ostler.canary"
"""Nobody logs there. It is disabled only when somebody disables whatever loggers there are."""


def configure(settings: Settings, *, slot: int | None = None) -> None:
    """Set up our loggers; what an earlier call has set up is replaced, other handlers stay.

    Raises:
        SettingsError: the log configuration cannot be applied; the loggers may be bare then.
    """
    logging.addLevelName(TRACE, "TRACE")
    for name in (*LOGGERS, _CANARY):
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if isinstance(h, LineHandler)]:
            logger.removeHandler(handler)
        logger.disabled = False
        logger.setLevel(logging.NOTSET)
    if settings.log_config is None:
        _set_up(settings, slot)
    else:
        _apply(settings)
    if not settings.access_log:
        access = logging.getLogger(ACCESS_LOGGER)
        access.handlers = []
        access.propagate = False
        access.disabled = True


def reconfigure(settings: Settings, before: Settings) -> None:
    """Set up our loggers anew; where that fails, as they were.

    Raises:
        SettingsError: the new log configuration cannot be applied; the one of `before` is, again.
    """
    try:
        if before.log_config is not None:
            _strip()
        configure(settings)
    except SettingsError:
        _strip()
        configure(before)
        raise


def _strip() -> None:
    """Take off what a log configuration has put on: the next one need not name the same loggers."""
    for name in ("", *LOGGERS):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()


def _set_up(settings: Settings, slot: int | None) -> None:
    general = logging.getLogger("ostler")
    access = logging.getLogger(ACCESS_LOGGER)
    for logger in (general, access):
        logger.setLevel(_level(settings.log_level or "info"))
        # The application's own root logger would write every line a second time.
        logger.propagate = False
    error_lines: logging.Formatter
    access_lines: logging.Formatter
    if settings.log_format == "json":
        error_lines = access_lines = JsonFormatter(slot=slot)
    else:
        error_lines = DefaultFormatter(DEFAULT_FORMAT, use_colors=settings.use_colors)
        # A format of the user's own is all that is in the line.
        access_lines = (
            AccessFormatter(ACCESS_FORMAT, use_colors=settings.use_colors)
            if settings.access_log_format is None
            else logging.Formatter()
        )
    general.addHandler(_handler(LineHandler(sys.stderr), error_lines))
    access.addHandler(_handler(LineHandler(sys.stdout), access_lines))
    if logging.lastResort is not None:
        # What an application that sets up no logging warns of, and asyncio in its place, comes by there.
        logging.lastResort.setFormatter(error_lines if settings.log_format == "json" else None)


def _apply(settings: Settings) -> None:
    from ostler.logging import apply_config  # imported here: few processes need it
    from ostler.settings import log_config

    assert settings.log_config is not None
    for name in LOGGERS:
        logging.getLogger(name).propagate = True
    # Settings that were made in code come without the content of their file.
    config = log_config.read(os.getcwd(), settings.log_config)
    apply_config.apply(config, use_colors=settings.use_colors)
    for name in (*LOGGERS, _CANARY):
        # `disable_existing_loggers`, which is on by default, means the loggers of others.
        logging.getLogger(name).disabled = False
    if settings.log_level is not None:
        # As in uvicorn: not the level of `ostler` itself.
        for name in LOGGERS[1:]:
            logging.getLogger(name).setLevel(_level(settings.log_level))
    for handler in _all_handlers():
        if isinstance(handler.formatter, DefaultFormatter):
            _handler(handler, handler.formatter)


def _handler(handler: logging.Handler, formatter: logging.Formatter) -> logging.Handler:
    if isinstance(formatter, DefaultFormatter):
        formatter = formatter.decided_for(getattr(handler, "stream", None))
    handler.setFormatter(formatter)
    return handler


def _level(name: str) -> int:
    return TRACE if name == "trace" else int(logging.getLevelName(name.upper()))


def revive() -> None:
    """Undo what `dictConfig(disable_existing_loggers=True)` of an application has done to our loggers.

    A single one of them that was disabled on purpose stays so.
    """
    canary = logging.getLogger(_CANARY)
    if canary.disabled:
        for name in (*LOGGERS, _CANARY):
            logging.getLogger(name).disabled = False


def at_completion(settings: Settings) -> bool:
    """Whether a line of the access log waits for the end of its response: it tells of time or length."""
    if not settings.access_log:
        return False
    if settings.access_log_format is not None:
        return True
    return any(getattr(h.formatter, "wants_completion", False) for h in _heard_by(ACCESS_LOGGER))


def structured() -> bool:
    """Whether what we log on stderr is JSON by now, so that a last line must be, too."""
    return any(
        isinstance(h.formatter, JsonFormatter) and getattr(h, "stream", None) is sys.stderr
        for h in _heard_by("ostler")
    )


def _heard_by(name: str) -> Iterator[logging.Handler]:
    """Yield the handlers that a record of this logger gets to, as `logging.Logger.callHandlers` does."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from _unwrapped(logger.handlers)
        logger = logger.parent if logger.propagate else None


def flush() -> None:
    """Write the lines of the access log that wait for the end of the loop's round, which may not come."""
    for handler in list(logging.getLogger(ACCESS_LOGGER).handlers):
        if isinstance(handler, LineHandler):
            handler.flush()


def reopen() -> None:
    """Let every file handler of every logger open its file anew at its next record (SIGUSR1).

    So that logrotate can move a file away and have a new one written to. Nothing is truncated.
    """
    for handler in _all_handlers():
        if isinstance(handler, logging.FileHandler):
            _reopen(handler)


def descriptors() -> list[int]:
    """Return those of the log files, opened where they are not yet."""
    handlers = [h for h in _all_handlers() if isinstance(h, logging.FileHandler)]
    for handler in handlers:
        if handler.stream is None and not handler.delay:
            with contextlib.suppress(OSError):
                handler.stream = handler._open()
    files = [handler.stream for handler in handlers]
    return [stream.fileno() for stream in files if stream is not None and not stream.closed]


def _reopen(handler: logging.FileHandler) -> None:
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


def _all_handlers() -> Iterator[logging.Handler]:
    root = logging.getLogger()
    # A copy: another thread may make a logger meanwhile.
    loggers = [root, *(x for x in list(root.manager.loggerDict.values()) if isinstance(x, logging.Logger))]
    return _unwrapped([handler for logger in loggers for handler in logger.handlers])


def _unwrapped(handlers: list[logging.Handler]) -> Iterator[logging.Handler]:
    """Yield each handler once, and those that it passes its records on to."""
    pending = list(handlers)
    seen: set[int] = set()
    while pending:
        handler = pending.pop()
        if id(handler) in seen:
            continue
        seen.add(id(handler))
        yield handler
        # A MemoryHandler wraps another one; a QueueHandler set up by dictConfig has its listener.
        target = getattr(handler, "target", None)
        pending += [target] if isinstance(target, logging.Handler) else []
        pending += getattr(getattr(handler, "listener", None), "handlers", ())
