"""Several signal captures at once: each gets every signal, and the last one to exit passes it on."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ostler.embed.signal_capture import SignalCapture

TERM = signal.SIGTERM


@pytest.fixture(autouse=True)
def program_got() -> Iterator[list[int]]:
    """The signals that reach the program's own handler."""
    found: list[int] = []
    before = signal.signal(TERM, lambda number, _: found.append(number))
    handler = signal.getsignal(TERM)
    yield found
    assert signal.getsignal(TERM) == handler, "the program's handler is back"
    signal.signal(TERM, before)


def test_the_first_capture_may_exit_first(program_got: list[int]) -> None:
    one: list[int] = []
    other: list[int] = []
    first, second = SignalCapture(one.append), SignalCapture(other.append)
    first.__enter__()
    second.__enter__()

    signal.raise_signal(TERM)
    first.__exit__()
    first.pass_on()
    assert (one, other, program_got) == ([TERM], [TERM], [])

    second.__exit__()
    second.pass_on()
    assert (one, other, program_got) == ([TERM], [TERM], [TERM])


def test_in_the_other_order_the_last_one_passes_the_signal_on_as_well(program_got: list[int]) -> None:
    with SignalCapture(lambda _: None) as first:
        with SignalCapture(lambda _: None) as second:
            signal.raise_signal(TERM)
        second.pass_on()
        assert program_got == []
    first.pass_on()

    assert program_got == [TERM]


def test_a_capture_that_begins_after_the_signal_gets_it_when_it_is_passed_on(program_got: list[int]) -> None:
    late: list[int] = []
    first, second = SignalCapture(lambda _: None), SignalCapture(late.append)
    first.__enter__()
    signal.raise_signal(TERM)
    second.__enter__()

    first.__exit__()
    first.pass_on()
    assert (late, program_got) == ([TERM], [])

    second.__exit__()
    second.pass_on()
    assert program_got == [TERM]


def test_a_capture_that_has_exited_calls_the_handler_below(program_got: list[int]) -> None:
    own: list[int] = []
    with SignalCapture(own.append):
        kept = signal.getsignal(TERM)
    before = signal.signal(TERM, kept)

    signal.raise_signal(TERM)

    signal.signal(TERM, before)
    assert (own, program_got) == ([], [TERM])


def test_a_signal_that_comes_twice_is_passed_on_once(program_got: list[int]) -> None:
    own: list[int] = []
    with SignalCapture(own.append) as captured:
        signal.raise_signal(TERM)
        signal.raise_signal(TERM)
    captured.pass_on()

    assert (own, program_got) == ([TERM, TERM], [TERM])
