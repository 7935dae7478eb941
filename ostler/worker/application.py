"""Loads the application that the settings name, and makes one ASGI 3 callable of it."""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import Iterator
from types import FunctionType
from typing import Any

from ostler import import_guard
from ostler.errors import StartupError
from ostler.logging import setup as log_setup
from ostler.settings.declarations import Settings
from ostler.system.cpus import usable_cpus
from ostler.worker.asgi import Application
from ostler.worker.importer import import_from_string
from ostler.worker.tracebacks import one_line, own_traceback

logger = logging.getLogger("ostler.error.worker")

MAX_DEFAULT_THREADS = 32
"""Threads for a WSGI application by default at the most, however many CPUs there are."""


def load(settings: Settings) -> Application:
    """Import the application that the settings name, and return it as one ASGI 3 callable.

    The two steps are `find` and `complete`, which also log what the application's own code raises. The first
    is for the time before the event loop runs, so that a module may call `asyncio.run()` as it is imported.
    The second calls factories, and is for the running loop, as in uvicorn.

    Raises:
        StartupError: the application could not be loaded; one line says why.
    """
    return complete(find(settings), settings)


def find(settings: Settings) -> object:
    """Return what the settings name: the application or its factory, imported where it is a string.

    Raises:
        StartupError: there is no such module or attribute, or the module raised an exception.
    """
    if not isinstance(settings.app, str):
        return settings.app
    with _failures_logged(settings):
        return import_from_string(settings.app)


def complete(found: Any, settings: Settings) -> Application:
    """Return what `find` has returned as one ASGI 3 callable; at trace level, it logs all ASGI messages.

    Raises:
        StartupError: it is no application, or a factory that is none or raised an exception.
    """
    name = settings.app if isinstance(settings.app, str) else type(settings.app).__name__
    with _failures_logged(settings):
        if settings.factory:
            found = _call_factory(found, name)
        elif inspect.isfunction(found) and _is_factory(found):
            logger.warning(
                '"%s" takes no arguments, so it is called as a factory; say so with --factory.', name
            )
            found = _call_factory(found, name)
        application = as_asgi3(found, settings, name)
    if logging.getLogger("ostler.asgi").isEnabledFor(log_setup.TRACE):
        from ostler.worker.interfaces.message_logger import MessageLogger

        return MessageLogger(application)
    return application


@contextlib.contextmanager
def _failures_logged(settings: Settings) -> Iterator[None]:
    """Log with its traceback what the application's own code raises within, and raise StartupError for it."""
    try:
        with import_guard.importing():
            yield
    except StartupError:
        raise
    except BaseException as exc:
        log_setup.revive()
        # A tuple: PyPy keeps the traceback of an exception that is being handled, whatever it is set to.
        logger.error(
            "The application could not be imported:\n", exc_info=(type(exc), exc, own_traceback(exc))
        )
        raise StartupError(f"{settings.app} could not be imported: {one_line(exc)}") from None
    log_setup.revive()


def _is_factory(function: FunctionType) -> bool:
    """Whether a function is a factory: one without required arguments cannot be an application."""
    return not inspect.iscoroutinefunction(function) and not _positional(function)


def _call_factory(factory: Any, name: str) -> Any:
    if not callable(factory):
        raise StartupError(f'"{name}" is not callable; with --factory it must be')
    try:
        inspect.signature(factory).bind()
    except ValueError:
        pass  # written in C, without a signature
    except TypeError as exc:
        raise StartupError(
            f'"{name}" is no factory: {exc}; if it is the application, omit --factory'
        ) from None
    made = factory()
    if inspect.iscoroutine(made):
        made.close()
        raise StartupError(f'"{name}" is an async factory; it must return the application itself')
    return made


def as_asgi3(found: Any, settings: Settings, name: str) -> Application:
    """Return `found`, which is called `name` in messages, as one ASGI 3 callable.

    Raises:
        StartupError: it is no application, or its interface is not clear, or it is WSGI and the settings
            demand a lifespan.
    """
    if not callable(found):
        raise StartupError(f'"{name}" is not an application: {type(found).__name__} is not callable')
    interface = _interface(found, name) if settings.interface == "auto" else settings.interface
    if interface == "asgi2":
        from ostler.worker.interfaces.asgi2 import from_asgi2

        return from_asgi2(found)
    if interface == "wsgi":
        return _as_wsgi(found, settings, name)
    application: Application = found
    return application


def _as_wsgi(found: Any, settings: Settings, name: str) -> Application:
    if settings.lifespan == "on":
        raise StartupError(f'"{name}" is a WSGI application, which has no lifespan: omit --lifespan on')
    # Imported here: most applications are not WSGI, and should not pay for it.
    from ostler.worker.interfaces.wsgi import WsgiAdapter

    threads = settings.wsgi_threads or min(MAX_DEFAULT_THREADS, usable_cpus() + 4)
    logger.info('"%s" is a WSGI application, served by up to %d threads.', name, threads)
    # Under an arbiter even a single worker is not alone: in a roll its successor runs, too.
    return WsgiAdapter(found, threads=threads, multiprocess=settings.workers is not None)


def _interface(found: Any, name: str) -> str:
    """Return the interface of `found`, judged by the parameters that it requires.

    Raises:
        StartupError: they fit no interface, or they may be WSGI's.
    """
    taken = _positional(found.__init__ if inspect.isclass(found) else found)
    if inspect.isclass(found):
        taken, is_async = taken[1:], False  # a call makes an instance; the first parameter is self
    else:
        call = getattr(found, "__call__", None)  # noqa: B004 - its value is needed
        is_async = inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(call)
    if len(taken) == 1 and not is_async:
        return "asgi2"
    if len(taken) == 2 and not is_async and _says_wsgi(*taken):
        return "wsgi"
    if len(taken) in (1, 2):
        hint = "" if is_async or len(taken) == 1 else "if it is WSGI, add --interface wsgi; "
        raise StartupError(
            f'"{name}" takes {", ".join(taken)}, and an ASGI application scope, receive and send: {hint}'
            "if it takes those, too, add --interface asgi3"
        )
    return "asgi3"


def _says_wsgi(environ: str, start_response: str) -> bool:
    return environ.lstrip("_").startswith("env") or start_response.lstrip("_").startswith("start")


def _positional(found: Any) -> list[str]:
    """Return the names of the required positional parameters; ASGI 3's where any number is taken."""
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
