"""Signals for a worker that hangs: to one of its threads, and never to another process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from ostler.supervisor.processes.child import find_tgkill, signal_another_thread, thread_ids
from tests.live.harness import wait_until

TWO_THREADS = """
import signal, threading
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
input()
"""
ONE_THREAD = "print('ready', flush=True); input()"


@contextlib.contextmanager
def running(program: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", program]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def pending(pid: int, thread: int, field: str) -> bool:
    """Whether SIGUSR2 waits, in `SigPnd` of one thread or in `ShdPnd` of its process (proc(5))."""
    with open(f"/proc/{pid}/task/{thread}/status") as file:
        [mask] = [line.split()[1] for line in file if line.startswith(f"{field}:")]
    return bool(int(mask, 16) & 1 << (signal.SIGUSR2 - 1))


def test_the_signal_goes_to_a_thread_that_is_not_the_main_one() -> None:
    with running(TWO_THREADS) as process:
        main, other = thread_ids(process.pid)
        assert main == process.pid

        signal_another_thread(process.pid, signal.SIGUSR2)

        assert pending(process.pid, other, "SigPnd")
        assert not pending(process.pid, main, "SigPnd")
        assert not pending(process.pid, main, "ShdPnd")


def test_a_thread_id_that_another_process_has_by_now_is_not_signalled() -> None:
    with running(ONE_THREAD) as worker, running(ONE_THREAD) as stranger:
        signal_another_thread(worker.pid, signal.SIGUSR2, thread_ids=lambda pid: sorted([pid, stranger.pid]))

        assert worker.wait() == -signal.SIGUSR2
        assert stranger.poll() is None


def test_the_next_thread_is_signalled_when_one_has_ended() -> None:
    sent: list[tuple[int, int, int]] = []

    def tgkill(pid: int, thread: int, number: int) -> None:
        if thread == 11:
            raise ProcessLookupError
        sent.append((pid, thread, number))

    signal_another_thread(
        10, signal.SIGUSR2, thread_ids=lambda pid: [10, 11, 12, 13], find_tgkill=lambda: tgkill
    )

    assert sent == [(10, 12, signal.SIGUSR2)]


def test_without_tgkill_the_process_is_signalled_and_no_thread() -> None:
    with running(TWO_THREADS) as process:
        main, other = thread_ids(process.pid)

        signal_another_thread(process.pid, signal.SIGUSR2, find_tgkill=lambda: None)

        assert pending(process.pid, main, "ShdPnd")
        assert not pending(process.pid, other, "SigPnd")


def test_a_process_that_has_no_other_thread_is_signalled_itself() -> None:
    with running(ONE_THREAD) as process:
        signal_another_thread(process.pid, signal.SIGUSR2)

        assert process.wait() == -signal.SIGUSR2


def test_tgkill_raises_what_the_kernel_answers() -> None:
    tgkill = find_tgkill()
    assert tgkill is not None
    with running(ONE_THREAD) as process, pytest.raises(ProcessLookupError):
        tgkill(os.getpid(), process.pid, signal.SIGUSR2)


def test_a_process_that_is_gone_has_no_threads() -> None:
    with running(ONE_THREAD) as process:
        pass
    wait_until(lambda: thread_ids(process.pid) == [], "its entry in /proc is gone")
