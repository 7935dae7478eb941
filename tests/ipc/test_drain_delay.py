"""The rule of `--drain-delay`: what each order to stop leads to."""

import pytest

from ostler.ipc.drain_delay import NOTICE, DrainDelay, StopStep


def test_the_first_order_withdraws_and_the_second_drains() -> None:
    delay = DrainDelay()

    assert delay.stop(5.0, serving=True) is StopStep.WITHDRAW
    assert delay.withdrawn
    assert delay.stop(5.0, serving=True) is StopStep.DRAIN


@pytest.mark.parametrize(
    ("seconds", "serving"),
    [(0.0, True), (5.0, False), (0.0, False)],
    ids=["no delay", "not serving", "neither"],
)
def test_without_a_delay_or_without_clients_the_first_order_drains(seconds: float, serving: bool) -> None:
    delay = DrainDelay()

    assert delay.stop(seconds, serving=serving) is StopStep.DRAIN
    assert delay.withdrawn


def test_an_order_that_found_nobody_served_is_the_first_all_the_same() -> None:
    delay = DrainDelay()
    delay.stop(5.0, serving=False)

    assert delay.stop(5.0, serving=True) is StopStep.DRAIN


def test_the_notice_names_the_delay() -> None:
    assert NOTICE % 2.5 == "Draining in 2.5 s: until then, health checks say 503 and requests are served"


def test_its_repr_shows_the_state() -> None:
    delay = DrainDelay()
    assert repr(delay) == "<DrainDelay serving>"
    delay.stop(1.0, serving=True)
    assert repr(delay) == "<DrainDelay withdrawn>"
