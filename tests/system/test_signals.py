"""The documented signals are those that the processes handle."""

import asyncio
import signal

import pytest

from ostler.ipc.contract import BLOCKED_ACROSS_SPAWN, HURRY_SIGNAL, IGNORED_BY_WORKERS, STACK_SIGNAL
from ostler.settings.sources import Sources
from ostler.supervisor.arbiter import Arbiter
from ostler.system.sd_notify import Notifier
from ostler.system.signals import MEANINGS, forgive_full_wakeup
from ostler.system.sockets import Listener
from ostler.worker.signal_handlers import REFUSED_WITHOUT_ARBITER


def test_the_arbiter_handles_every_signal_that_is_documented_and_no_other() -> None:
    configuration = Sources(values={"app": "main:app"}).load()
    listeners: list[Listener] = []
    arbiter = Arbiter(
        configuration,
        size=1,
        load=lambda: configuration,
        listeners=listeners,
        entry=print,
        directory=".",
        notifier=Notifier(),
    )
    try:
        handled = {number.name for number in arbiter.handlers}
    finally:
        arbiter.close()
    # How children end is the arbiter's own business.
    assert handled - {"SIGCHLD"} == {meaning.name for meaning in MEANINGS}


def test_a_worker_handles_or_ignores_every_signal_that_is_documented() -> None:
    ignored = {meaning.name for meaning in MEANINGS if meaning.worker.startswith("ignored")}
    handled = set(BLOCKED_ACROSS_SPAWN) - {*IGNORED_BY_WORKERS, HURRY_SIGNAL}
    assert {number.name for number in IGNORED_BY_WORKERS} == ignored
    assert {number.name for number in handled} == {meaning.name for meaning in MEANINGS} - ignored
    assert STACK_SIGNAL == signal.SIGUSR2


def test_a_plain_server_refuses_the_signals_that_the_table_says_it_refuses() -> None:
    refused = {meaning.name for meaning in MEANINGS if "refused with a warning" in meaning.plain}
    assert {number.name for number in REFUSED_WITHOUT_ARBITER} == refused
    assert set(REFUSED_WITHOUT_ARBITER) <= set(IGNORED_BY_WORKERS)


def test_a_flood_of_signals_fills_what_wakes_the_loop_in_silence(capfd: pytest.CaptureFixture[str]) -> None:
    """The interpreter's warning takes a lock within the C handler, and the next signal would wait for it."""
    previous = signal.getsignal(signal.SIGUSR1)
    heard: list[int] = []
    loop = asyncio.new_event_loop()
    try:
        loop.add_signal_handler(signal.SIGUSR1, heard.append, 1)
        forgive_full_wakeup()

        def flood() -> None:
            for _ in range(5000):
                signal.raise_signal(signal.SIGUSR1)
            loop.call_later(0.01, loop.stop)

        loop.call_soon(flood)
        loop.run_forever()
    finally:
        loop.close()
        signal.signal(signal.SIGUSR1, previous)
    assert 0 < len(heard) < 5000  # it was full
    assert capfd.readouterr().err == ""
