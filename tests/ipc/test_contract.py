"""The constants that arbiter and worker share: that they agree with each other, and with the kernel."""

from __future__ import annotations

import fcntl
import os
import signal
import sys

import pytest

from ostler.ipc import contract
from ostler.supervisor.fleet import slot


def test_a_hurried_worker_has_time_for_its_lifespan_before_it_is_killed() -> None:
    assert contract.HURRY_LINGER < contract.HURRY_FINISH
    assert contract.HURRY_FINISH + contract.HURRY_CANCEL < contract.HURRY_GRACE


def test_every_signal_of_the_contract_is_blocked_across_a_spawn() -> None:
    signals = {
        *(contract.STACK_SIGNAL, contract.HURRY_SIGNAL),
        *contract.STOP_SIGNALS,
        *contract.IGNORED_BY_WORKERS,
    }

    assert signals <= set(contract.BLOCKED_ACROSS_SPAWN)
    assert len(set(contract.BLOCKED_ACROSS_SPAWN)) == len(contract.BLOCKED_ACROSS_SPAWN)


def test_signals_that_cannot_be_blocked_or_that_end_a_worker_by_force_are_not_in_the_contract() -> None:
    """SIGABRT and the signals of faults must take effect in a process that is still starting."""
    by_force = {signal.SIGKILL, signal.SIGSTOP, signal.SIGABRT, signal.SIGSEGV, signal.SIGCHLD}

    assert not by_force & set(contract.BLOCKED_ACROSS_SPAWN)


def test_no_signal_from_the_arbiter_is_ignored_by_workers() -> None:
    orders = {contract.STACK_SIGNAL, contract.HURRY_SIGNAL, *contract.STOP_SIGNALS}

    assert not orders & set(contract.IGNORED_BY_WORKERS)
    assert len(orders) == 4


def test_nothing_happens_to_a_worker_that_gets_the_hurry_signal_before_it_handles_it() -> None:
    """Its default action is to be ignored (signal(7)): it must not end a worker that starts."""
    assert contract.HURRY_SIGNAL == signal.SIGURG


@pytest.mark.skipif(sys.platform != "linux", reason="F_GETPIPE_SZ is Linux's")
def test_one_read_takes_all_that_a_pipe_can_hold() -> None:
    reader, writer = os.pipe()
    try:
        assert fcntl.fcntl(reader, 1032) <= contract.PIPE_SIZE  # F_GETPIPE_SZ
    finally:
        os.close(reader)
        os.close(writer)


def test_the_arbiter_ends_a_drain_that_takes_too_long_before_the_worker_does() -> None:
    assert 2 * slot.DRAIN_GRACE < contract.WORKER_EXIT_MARGIN
