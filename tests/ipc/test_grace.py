"""The grace margins: one set of numbers for the arbiter and its workers."""

from __future__ import annotations

from ostler.ipc import contract, grace
from ostler.supervisor.fleet import slot


def test_the_arbiter_ends_a_drain_that_takes_too_long_before_the_worker_does() -> None:
    assert 2 * slot.DRAIN_GRACE < grace.WORKER_EXIT_MARGIN


def test_every_margin_is_also_found_in_the_contract() -> None:
    margins = {name: value for name, value in vars(grace).items() if name.isupper()}
    assert margins == {name: getattr(contract, name) for name in margins}
