"""The grace margins fit each other: a worker's own steps end before the arbiter uses force."""

from __future__ import annotations

from ostler.ipc import contract, grace
from ostler.supervisor.fleet import slot


def test_a_hurried_worker_has_time_for_a_lifespan_shutdown_after_its_requests() -> None:
    assert grace.HURRY_FINISH + grace.HURRY_CANCEL < grace.HURRY_GRACE
    assert grace.HURRY_LINGER < grace.HURRY_FINISH


def test_an_arbiter_ends_a_drain_before_the_workers_last_resort_does() -> None:
    assert 2 * slot.DRAIN_GRACE < grace.WORKER_EXIT_MARGIN


def test_every_margin_is_also_found_in_the_contract() -> None:
    margins = {name: value for name, value in vars(grace).items() if name.isupper()}
    assert margins == {name: getattr(contract, name) for name in margins}
