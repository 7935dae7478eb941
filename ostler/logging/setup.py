"""Configures ostler's loggers: in uvicorn's text formats, as JSON, or as a log configuration says.

`ostler` and its children go to stderr, `ostler.access` to stdout. A log that cannot be written loses lines,
but no request fails: the lines are counted, and the count is logged when writing works again
(`line_handler`).

What ostler itself reports is logged by area: `ostler.error.supervisor` and `ostler.error.worker`. uvicorn's
log configurations, and applications that follow them, know the parent only. So both areas are configured
through it: they inherit its level and handlers, and `link_areas` applies its filters to them.

To open log files again, this relies on two names of logging that its documentation does not have:
`Manager.loggerDict`, to find all handlers, and `FileHandler._open`. Many programs use them. If one is gone,
SIGUSR1 or the start raises AttributeError, and the tests of SIGUSR1 and of log files fail.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from typing import Any

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
from ostler.settings.kinds import OWN_LOG_CONFIG, LogConfig

__all__ = [
    "TRACE",
    "at_completion",
    "configure",
    "flush",
    "link_areas",
    "reconfigure",
    "reopen",
    "revive",
    "structured",
]

_ERROR_LOGGER = "ostler.error"
_AREAS = ("ostler.error.supervisor", "ostler.error.worker")
LOGGERS = ("ostler", _ERROR_LOGGER, *_AREAS, ACCESS_LOGGER, "ostler.asgi")
_CANARY = "ostler.canary"
"""A logger that nothing uses. It is disabled only by code that disables all loggers that exist."""


def configure(settings: Settings, *, slot: int | None = None) -> None:
    """Configure ostler's loggers; replaces what an earlier call has configured, and keeps other handlers.

    Args:
        settings: those whose names begin with `log_` and `access_log`, and `use_colors`.
        slot: the worker's slot, for the JSON format; None reads it from the environment.

    Raises:
        SettingsError: the log configuration cannot be applied; the loggers may have no handlers then.
    """
    logging.addLevelName(TRACE, "TRACE")
    link_areas()
    if settings.log_config is None:
        # Handlers are the application's. As in uvicorn, a level and no access log still count.
        logging.getLogger(_CANARY)  # for `revive`
        _set_levels(settings)
    else:
        _set_up(settings, settings.log_config, slot)
    if not settings.access_log:
        access = logging.getLogger(ACCESS_LOGGER)
        access.handlers = []
        access.propagate = False
        access.disabled = True


def _set_up(settings: Settings, log_config: LogConfig, slot: int | None) -> None:
    for name in (*LOGGERS, _CANARY):
        logger = logging.getLogger(name)
        for handler in [h for h in logger.handlers if isinstance(h, LineHandler)]:
            logger.removeHandler(handler)
        logger.disabled = False
        logger.setLevel(logging.NOTSET)
    if log_config == OWN_LOG_CONFIG:
        _configure_defaults(settings, slot)
    else:
        _apply_log_config(settings, log_config)


def reconfigure(settings: Settings, before: Settings) -> None:
    """Replace the configuration of `before` by that of `settings`; if that fails, restore it.

    Raises:
        SettingsError: the new log configuration cannot be applied; that of `before` has been applied again.
    """
    try:
        if before.log_config not in (None, OWN_LOG_CONFIG):
            _undo_log_config()
        configure(settings)
    except SettingsError:
        _undo_log_config()
        configure(before)
        raise


def _undo_log_config() -> None:
    """Undo what a log configuration has changed: the next one need not name the same loggers."""
    for name in ("", *LOGGERS):
        logger = logging.getLogger(name)
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.filters.clear()
        logger.propagate = True


def _configure_defaults(settings: Settings, slot: int | None) -> None:
    general = logging.getLogger("ostler")
    access = logging.getLogger(ACCESS_LOGGER)
    for logger in (general, access):
        logger.setLevel(_level(settings.log_level or "info"))
        # The root logger is the application's, and would write every line a second time.
        logger.propagate = False
    error_lines: logging.Formatter
    access_lines: logging.Formatter
    if settings.log_format == "json":
        error_lines = access_lines = JsonFormatter(slot=slot)
    else:
        error_lines = DefaultFormatter(DEFAULT_FORMAT, use_colors=settings.use_colors)
        # With --access-log-format the message is the whole line.
        access_lines = (
            AccessFormatter(ACCESS_FORMAT, use_colors=settings.use_colors)
            if settings.access_log_format is None
            else logging.Formatter()
        )
    general.addHandler(_with_formatter(LineHandler(sys.stderr), error_lines))
    access.addHandler(_with_formatter(LineHandler(sys.stdout), access_lines))
    if logging.lastResort is not None:
        # It writes the warnings of asyncio, and of an application that configures no logging.
        logging.lastResort.setFormatter(error_lines if settings.log_format == "json" else None)


def _apply_log_config(settings: Settings, log_config: LogConfig) -> None:
    from ostler.logging import apply_config  # imported here: few processes need it
    from ostler.settings.log_config import read

    for name in LOGGERS:
        logging.getLogger(name).propagate = True
    # Settings that were made in code come without the content of their file.
    config = read(os.getcwd(), log_config)
    apply_config.apply(config, use_colors=settings.use_colors)
    for name in (*LOGGERS, _CANARY):
        # `disable_existing_loggers`, which is on by default, means the loggers of others.
        logging.getLogger(name).disabled = False
    _set_levels(settings)
    for handler in _all_handlers():
        if isinstance(handler.formatter, DefaultFormatter):
            _with_formatter(handler, handler.formatter)


def _set_levels(settings: Settings) -> None:
    if settings.log_level is not None:
        # As in uvicorn: not the level of `ostler` itself.
        for name in LOGGERS[1:]:
            logging.getLogger(name).setLevel(_level(settings.log_level))


def _with_formatter(handler: logging.Handler, formatter: logging.Formatter) -> logging.Handler:
    if isinstance(formatter, DefaultFormatter):
        formatter = formatter.decided_for(getattr(handler, "stream", None))
    handler.setFormatter(formatter)
    return handler


def _level(name: str) -> int:
    return TRACE if name == "trace" else int(logging.getLevelName(name.upper()))


def link_areas() -> None:
    """Apply the filters and the `disabled` of `ostler.error` to the loggers of both areas.

    logging passes a child's records to the handlers of its parent, but not through the parent's filters.
    Without this, a filter on `ostler.error` would no longer see what ostler logs.
    """
    for name in _AREAS:
        logging.getLogger(name).addFilter(_parent_accepts)  # has no effect the second time


def _parent_accepts(record: logging.LogRecord) -> Any:
    """Return whether the record is logged; from Python 3.12 on a filter may also return another record."""
    parent = logging.getLogger(_ERROR_LOGGER)
    return not parent.disabled and parent.filter(record)


def revive() -> None:
    """Enable ostler's loggers again after the application's `dictConfig(disable_existing_loggers=True)`.

    A single logger that the application has disabled on purpose stays disabled.
    """
    canary = logging.getLogger(_CANARY)
    if canary.disabled:
        for name in (*LOGGERS, _CANARY):
            logging.getLogger(name).disabled = False


def at_completion(settings: Settings) -> bool:
    """Whether access log lines are written when the response ends: they contain its duration or length."""
    if not settings.access_log:
        return False
    if settings.access_log_format is not None:
        return True
    return any(getattr(h.formatter, "wants_completion", False) for h in _handlers_of(ACCESS_LOGGER))


def structured() -> bool:
    """Whether the log on stderr is JSON, so that a last line before the exit must be JSON as well."""
    return any(
        isinstance(h.formatter, JsonFormatter) and getattr(h, "stream", None) is sys.stderr
        for h in _handlers_of("ostler")
    )


def _handlers_of(name: str) -> Iterator[logging.Handler]:
    """Yield the handlers that receive the records of this logger, as `logging.Logger.callHandlers` does."""
    logger: logging.Logger | None = logging.getLogger(name)
    while logger is not None:
        yield from _with_targets(logger.handlers)
        logger = logger.parent if logger.propagate else None


def flush() -> None:
    """Write the access log lines that wait for the end of the loop's iteration, which may never come."""
    for handler in list(logging.getLogger(ACCESS_LOGGER).handlers):
        if isinstance(handler, LineHandler):
            handler.flush()


def reopen() -> None:
    """Make every file handler of every logger open its file again at its next record (SIGUSR1).

    logrotate moves a log file away, and this makes the handlers write to a new one. No file is truncated.
    """
    for handler in _all_handlers():
        if isinstance(handler, logging.FileHandler):
            _reopen(handler)


def descriptors() -> list[int]:
    """Return the descriptors of all log files; files that are not open yet are opened."""
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
        stream, handler.stream = handler.stream, None  # emit() opens it again
        # If the file was not moved away, opening it with "w" would delete its content.
        handler.mode = handler.mode.replace("w", "a").replace("x", "a")
        if stream is not None:
            stream.close()
    except (OSError, RuntimeError):
        # The disk is full and refuses the last buffered bytes; or the signal interrupted a write to this
        # stream, and that write goes to the old file. In both cases the next record opens the new file.
        pass
    finally:
        handler.release()


def _all_handlers() -> Iterator[logging.Handler]:
    root = logging.getLogger()
    # A copy: another thread may create a logger during the iteration.
    loggers = [root, *(x for x in list(root.manager.loggerDict.values()) if isinstance(x, logging.Logger))]
    return _with_targets([handler for logger in loggers for handler in logger.handlers])


def _with_targets(handlers: list[logging.Handler]) -> Iterator[logging.Handler]:
    """Yield each handler once, and each handler that it passes its records to."""
    pending = list(handlers)
    seen: set[int] = set()
    while pending:
        handler = pending.pop()
        if id(handler) in seen:
            continue
        seen.add(id(handler))
        yield handler
        # A MemoryHandler has a target; a QueueHandler that dictConfig has configured has a listener.
        target = getattr(handler, "target", None)
        pending += [target] if isinstance(target, logging.Handler) else []
        pending += getattr(getattr(handler, "listener", None), "handlers", ())
