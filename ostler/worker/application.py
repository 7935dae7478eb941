"""From an import string to one ASGI 3 callable."""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import traceback
from types import TracebackType
from typing import Any

from ostler import logs, reentry
from ostler.errors import StartupError
from ostler.settings import Settings
from ostler.worker.asgi import Application

logger = logging.getLogger("ostler.error")

# Where ostler's own modules lie: their frames are left out of an application's traceback.
_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def load(settings: Settings) -> Application:
    """Import the application that the settings name, and return it as one ASGI 3 callable.

    Raises:
        StartupError: there is no such module or attribute, or the factory or the object does not fit.
        Exception: whatever the application's own code raises while it is imported.
    """
    found = import_from_string(settings.app) if isinstance(settings.app, str) else settings.app
    if settings.factory:
        if not callable(found):
            raise StartupError(f'"{settings.app}" is not callable; with --factory it must be')
        try:
            inspect.signature(found).bind()
        except TypeError as exc:
            raise StartupError(
                f'"{settings.app}" cannot be called without arguments, as a factory is: {exc}'
            ) from None
        except ValueError:
            pass  # some that are written in C have no signature
        found = found()
    elif inspect.isfunction(found) and not _positional(found) and not inspect.iscoroutinefunction(found):
        raise StartupError(f'"{settings.app}" takes no arguments: if it makes the application, add --factory')
    return as_asgi3(found, settings)


def load_or_say_why(settings: Settings) -> Application:
    """Do as `load`, and log what the application's own code raises; at trace level, also all messages.

    Raises:
        StartupError: one line that says why there is no application.
    """
    try:
        with reentry.importing():
            found = load(settings)
    except StartupError:
        raise
    except BaseException as exc:
        logs.revive()
        logger.error(
            "The application could not be imported:\n", exc_info=exc.with_traceback(own_traceback(exc))
        )
        raise StartupError(f"{settings.app} could not be imported: {one_line(exc)}") from None
    logs.revive()
    if logging.getLogger("ostler.asgi").isEnabledFor(logs.TRACE):
        from ostler.worker.middleware.trace import MessageLogger

        return MessageLogger(found)
    return found


def import_from_string(text: str) -> Any:
    """Return the object that `module:attribute` names; the attribute may be dotted.

    Raises:
        StartupError: there is no such module or attribute.
    """
    module_name, _, attributes = text.partition(":")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as exc:
        # A module that the application itself imports is the application's error, with its traceback.
        missing = exc.name
        if missing is None or not (module_name == missing or module_name.startswith(f"{missing}.")):
            raise
        raise StartupError(
            f'Could not import module "{module_name}": there is no such module in the working directory, '
            "--app-dir or the environment"
        ) from None
    try:
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except AttributeError:
        raise StartupError(f'Attribute "{attributes}" not found in module "{module_name}"') from None
    return found


def as_asgi3(found: Any, settings: Settings) -> Application:
    """Return what was found as one ASGI 3 callable.

    Raises:
        StartupError: it is no application, or one of an interface that is not served.
    """
    if not callable(found):
        raise StartupError(
            f'"{settings.app}" is not an ASGI application: {type(found).__name__} is not callable'
        )
    if settings.interface == "auto":
        arity = len(_positional(found.__init__ if inspect.isclass(found) else found))
        if inspect.isclass(found):
            arity -= 1  # self
        if arity in (1, 2):
            what = "an ASGI 2" if arity == 1 else "a WSGI"
            raise StartupError(
                f'"{settings.app}" looks like {what} application, which is not supported yet; '
                "if it is ASGI 3, add --interface asgi3"
            )
    application: Application = found
    return application


def _positional(found: Any) -> list[str]:
    """Return the names of the required positional parameters, or three for whoever takes any number."""
    try:
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return ["scope", "receive", "send"]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return ["scope", "receive", "send"]
    return [
        p.name
        for p in parameters
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty
    ]


def own_traceback(exc: BaseException) -> TracebackType | None:
    """Return the part of a traceback that begins in the application's code, the importing left out."""
    step = exc.__traceback__
    while step is not None and _is_ours(step.tb_frame.f_code.co_filename):
        step = step.tb_next
    return step or exc.__traceback__


def one_line(exc: BaseException) -> str:
    """Return an exception as one line: type, message, and the file and line where it arose."""
    first = traceback.format_exception_only(type(exc), exc)
    # A syntax error's message comes after the lines that show its place; others may span several lines.
    text = " ".join((first[-1] if isinstance(exc, SyntaxError) else "".join(first)).split())
    frames = traceback.extract_tb(own_traceback(exc))
    if isinstance(exc, SyntaxError) and exc.filename:
        return f"{text} ({exc.filename}, line {exc.lineno})"
    # A failing import inside importlib says nothing; the last line of the application's code does.
    for frame in reversed(frames):
        if not frame.filename.startswith("<frozen "):
            return f"{text} ({frame.filename}, line {frame.lineno})"
    return text


def _is_ours(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", _PACKAGE)) or filename == importlib.__file__
