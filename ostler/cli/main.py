"""The entry point of the command `ostler`: reads command line and settings, and calls `ostler.cli.run`.

Modules that only some calls need are imported where they are used, to keep the arbiter's process small.
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
"""The exit code after Ctrl+C: 128 + SIGINT, as a shell reports it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command `ostler` and return its exit code.

    Args:
        arguments: the command line without the program's name; None takes that of this process.

    Returns:
        0 for a stop that was asked for, 1 for an internal error, 2 for bad usage or configuration, 3 if the
        application failed to start, 4 if a socket could not be bound or adopted, 130 after Ctrl+C.
    """
    _fill_standard_descriptors()
    inherited = None
    try:
        inherited = take_handover()
        return _run(sys.argv[1:] if arguments is None else arguments, inherited)
    except OstlerError as error:
        report_error(error)
        if inherited is not None:
            inherited.failed(str(error))
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED


def take_handover() -> Inherited | None:
    """Return what the old arbiter hands over in an upgrade; None if this process is not part of one.

    Raises:
        OstlerError: the variable that describes it is wrong.
    """
    # Checked before the import: few starts need it, and it fails without a working directory (Python 3.13).
    if "OSTLER_HANDOVER" not in os.environ:
        return None
    from ostler.supervisor.upgrade import handover

    return handover.take(os.environ)


def _run(arguments: Sequence[str], inherited: Inherited | None) -> int:
    from ostler.cli import options
    from ostler.settings.declarations import declarations, flag
    from ostler.settings.sources import Sources
    from ostler.system.working_directory import working_directory

    command_line = _printed(lambda: options.parse(arguments))
    if command_line is None:
        return 0
    secrets = [name for name in command_line.flags if declarations()[name].kind.secret]
    if secrets:
        from ostler.system.process_title import conceal

        conceal(flag(name) for name in secrets)
    sources = Sources(
        flags=command_line.flags,
        config=command_line.config,
        env_file=command_line.env_file,
        environ=dict(os.environ),
        directory=working_directory(),
    )
    configuration = sources.load(complete=not command_line.show_settings)
    if command_line.show_settings or configuration.settings.log_format == "text":
        for warning in configuration.warnings:
            write_to_stderr(f"Warning: {warning}")
    if command_line.show_settings:
        from ostler.cli import show_settings

        _printed(lambda: print(show_settings.table(configuration), end=""))
        return 0
    if os.getpid() == 1:
        from ostler.system import init_process
        from ostler.system.cpus import worker_count

        # An arbiter reaps by itself: it knows its workers.
        code = init_process.fork_server() if worker_count(configuration.settings) is None else None
        if code is not None:
            return code

    from ostler.cli.run import serve

    return serve(sources, configuration, inherited)


def _printed(action: Callable[[], T]) -> T | None:
    """Call `action`, which prints to stdout, flush stdout, and return the result.

    Returns None if the reader has closed the pipe, as in `ostler --help | head`; that is no failure.

    Raises:
        OstlerError: stdout cannot be written for another reason.
    """
    try:
        result = action()
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter flushes stdout again when it exits, and would print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return None
        raise OstlerError(f"cannot write to stdout: {error.strerror}") from None
    return result


def _fill_standard_descriptors() -> None:
    """Open /dev/null on each standard descriptor that is closed.

    Otherwise the next socket or pipe would get descriptor 0, 1 or 2, and the application would print into it.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # gets the lowest free number


def report_error(error: OstlerError) -> None:
    """Write the error that ends ostler to stderr, in the format of the log."""
    from ostler.logging import setup as log_setup

    if log_setup.structured():
        import logging

        # The reader of stderr expects JSON. The highest level, so that no level setting hides the reason.
        logging.getLogger("ostler").critical("%s", error)
    else:
        write_to_stderr(f"Error: {error}")


def write_to_stderr(line: str) -> None:
    """Write one line to stderr."""
    # If the line cannot be written, the exit code still tells what happened.
    with contextlib.suppress(OSError):
        if sys.stderr is None:
            return
        # One write: print() makes two, between which a worker may write a line.
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
