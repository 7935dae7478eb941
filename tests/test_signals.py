"""What the docs say of signals is what the processes handle."""

import signal

from ostler.notify import Notifier
from ostler.signals import MEANINGS
from ostler.sockets import Listener
from ostler.sources import Sources
from ostler.supervisor.arbiter import Arbiter
from ostler.worker import orders as worker


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
    assert {number.name for number in worker.IGNORED} == ignored
    assert {number.name for number in worker.HANDLED} == {meaning.name for meaning in MEANINGS} - ignored
    assert worker.STACK_SIGNAL == signal.SIGUSR2
