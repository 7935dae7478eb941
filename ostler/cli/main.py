"""The entry point of `ostler`: reads the command line, and hands over to `ostler.cli.run`.

What it needs for the command line alone is imported where it is used: the arbiter's process stays small.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from ostler.errors import OstlerError

if TYPE_CHECKING:
    from ostler.supervisor.upgrade.handover import Inherited

T = TypeVar("T")

INTERRUPTED = 130
"""128 + SIGINT, as a shell reports a command that Ctrl+C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `ostler` with `arguments` (default: the process's) and return its exit code.

    0 stopped as asked, 1 internal error, 2 bad usage or configuration, 3 the application failed to
    start, 4 a socket could not be bound or adopted.
    """
    _fill_standard_descriptors()
    inherited = None
    try:
        inherited = handover_to_us()
        return _run(sys.argv[1:] if arguments is None else arguments, inherited)
    except OstlerError as error:
        last_words(error)
        if inherited is not None:
            inherited.failed(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def handover_to_us() -> Inherited | None:
    """Return what an arbiter hands over whose place we are to take; None if none does.

    Raises:
        OstlerError: it cannot be understood.
    """
    # Looked for before the import, which few starts need, and which fails without a working directory (3.13).
    if "OSTLER_HANDOVER" not in os.environ:
        return None
    from ostler.supervisor.upgrade import handover

    return handover.take(os.environ)


def _run(arguments: Sequence[str], inherited: Inherited | None) -> int:
    from ostler.cli import options
    from ostler.settings.declarations import declarations, flag
    from ostler.settings.sources import Sources
    from ostler.system.working_directory import working_directory

    request = _printed(lambda: options.read(arguments))
    if request is None:
        return 0
    secrets = [name for name in request.flags if declarations()[name].kind.secret]
    if secrets:
        from ostler.system.process_title import conceal

        conceal(flag(name) for name in secrets)
    sources = Sources(
        flags=request.flags,
        config=request.config,
        env_file=request.env_file,
        environ=dict(os.environ),
        directory=working_directory(),
    )
    configuration = sources.load(complete=not request.show_settings)
    if request.show_settings or configuration.settings.log_format == "text":
        for warning in configuration.warnings:
            complain(f"Warning: {warning}")
    if request.show_settings:
        from ostler.cli import show_settings

        _printed(lambda: print(show_settings.table(configuration), end=""))
        return 0

    from ostler.cli.run import serve

    return serve(sources, configuration, inherited)


def _printed(action: Callable[[], T]) -> T | None:
    """Do `action`, which prints, and make sure that what it prints is written.

    Returns None when the reader has gone, as in `ostler --help | head`, which is no failure.
    """
    try:
        result = action()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes stdout once more as it exits, and would complain at length.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return None
        raise OstlerError(f"cannot write to stdout: {error.strerror}") from None
    return result


def _fill_standard_descriptors() -> None:
    """Open /dev/null on each standard descriptor that we were started without.

    The next socket or pipe would become descriptor 0, 1 or 2 else, and what an application prints go there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free one, which is this


def last_words(error: OstlerError) -> None:
    """Say what has ended ostler, in the form that the log has."""
    from ostler.logging import setup as log_setup

    if log_setup.structured():
        import logging

        # Whatever reads stderr expects JSON by now. Of no lower level: what was filtered would say nothing.
        logging.getLogger("ostler").critical("%s", error)
    else:
        complain(f"Error: {error}")


def complain(line: str) -> None:
    """Write one line to stderr."""
    # Where the line cannot be written, the exit code still says what it has to.
    with contextlib.suppress(OSError):
        if sys.stderr is None:
            return
        # One write: print() makes two of it, between which a worker's line may come.
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
