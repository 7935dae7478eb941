"""Signals that are taken for a while: all get them, one passes them on, whoever leaves first."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from ostler.embed.signal_capture import SignalCapture

TERM = signal.SIGTERM


@pytest.fixture(autouse=True)
def heard() -> Iterator[list[int]]:
    """What reaches the handler of the program."""
    found: list[int] = []
    before = signal.signal(TERM, lambda number, _: found.append(number))
    handler = signal.getsignal(TERM)
    yield found
    assert signal.getsignal(TERM) == handler, "the program's handler is back"
    signal.signal(TERM, before)


def test_whoever_came_first_may_leave_first(heard: list[int]) -> None:
    one: list[int] = []
    other: list[int] = []
    first, second = SignalCapture(one.append), SignalCapture(other.append)
    first.__enter__()
    second.__enter__()

    signal.raise_signal(TERM)
    first.__exit__()
    first.pass_on()
    assert (one, other, heard) == ([TERM], [TERM], [])

    second.__exit__()
    second.pass_on()
    assert (one, other, heard) == ([TERM], [TERM], [TERM])


def test_the_last_one_passes_it_on_in_the_other_order_as_well(heard: list[int]) -> None:
    with SignalCapture(lambda _: None) as first:
        with SignalCapture(lambda _: None) as second:
            signal.raise_signal(TERM)
        second.pass_on()
        assert heard == []
    first.pass_on()

    assert heard == [TERM]


def test_one_that_comes_after_the_signal_hears_of_it_when_it_is_passed_on(heard: list[int]) -> None:
    late: list[int] = []
    first, second = SignalCapture(lambda _: None), SignalCapture(late.append)
    first.__enter__()
    signal.raise_signal(TERM)
    second.__enter__()

    first.__exit__()
    first.pass_on()
    assert (late, heard) == ([TERM], [])

    second.__exit__()
    second.pass_on()
    assert heard == [TERM]


def test_one_that_is_gone_lets_through_what_still_reaches_it(heard: list[int]) -> None:
    own: list[int] = []
    with SignalCapture(own.append):
        kept = signal.getsignal(TERM)
    before = signal.signal(TERM, kept)

    signal.raise_signal(TERM)

    signal.signal(TERM, before)
    assert (own, heard) == ([], [TERM])


def test_a_signal_that_comes_twice_is_passed_on_once(heard: list[int]) -> None:
    own: list[int] = []
    with SignalCapture(own.append) as captured:
        signal.raise_signal(TERM)
        signal.raise_signal(TERM)
    captured.pass_on()

    assert (own, heard) == ([TERM, TERM], [TERM])
