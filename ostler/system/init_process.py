"""The first process of a container (PID 1), beside a server that is its child: passes signals on, and reaps.

PID 1 becomes the parent of every process whose own parent has ended, and has to reap it. A server cannot do
that for itself: of an ended child, the kernel does not say whether it is such an orphan, or was started by
the application, which waits for its exit code. So the server runs in a child process, whose children are all
its own, and this process has no others than the server and orphans. tini and dumb-init do the same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import MutableMapping

_OWN = frozenset(
    {signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE}
)
"""Signals that are not passed on: those about this process itself, and those that nothing can catch."""
_SI_KERNEL = 0x80
"""`si_code` of a signal that the kernel has sent, such as Ctrl+C at a terminal (sigaction(2))."""
_ADDRESSED = ("LISTEN_PID", "WATCHDOG_PID")
"""Variables of a service manager that name the process they are meant for (sd_listen_fds(3))."""


def fork_server(environ: MutableMapping[str, str] = os.environ) -> int | None:
    """Fork, and return None in the child, which is to serve; in this process, return the child's exit code.

    Call it before there are threads, sockets or handlers of signals.

    Args:
        environ: the variables in which the child takes this process's place.

    Returns:
        The exit code; 128 plus the signal's number if a signal has ended the child, as a shell has it. None
        also where Python cannot wait for signals (macOS): this process has to serve itself.
    """
    if not hasattr(signal, "sigwaitinfo"):
        return None
    awaited = signal.valid_signals() - _OWN | {signal.SIGCHLD}
    own_pid = str(os.getpid())
    # Blocked signals wait for `sigwaitinfo`; also in PID 1, to which the kernel sends no other signals for
    # which there is no handler (kill(2)).
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for name in _ADDRESSED:
            if environ.get(name) == own_pid:
                environ[name] = str(os.getpid())
        return None
    while (code := _reap(child)) is None:
        came = signal.sigwaitinfo(awaited)
        # What the terminal's keys send has reached the child, too, which is in the same process group. A
        # hang-up is sent to the leader of the session alone.
        by_key = came.si_code == _SI_KERNEL and came.si_signo != signal.SIGHUP
        if came.si_signo != signal.SIGCHLD and not by_key:
            os.kill(child, came.si_signo)
    return code


def _reap(child: int) -> int | None:
    """Collect every process that has ended; return the exit code of `child` if that is among them."""
    code = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return code
        if pid == 0:
            return code
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            code = 128 - code if code < 0 else code
