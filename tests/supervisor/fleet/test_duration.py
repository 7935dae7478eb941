"""Durations as the log shows them."""

from __future__ import annotations

import pytest

from ostler.supervisor.fleet.duration import format_duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0 s"),
        (1.25, "1.2 s"),
        (9.94, "9.9 s"),
        (9.95, "10 s"),
        (599.4, "599 s"),
        (600.0, "10 min"),
        (35_999.0, "600 min"),
        (36_000.0, "10 h"),
    ],
)
def test_a_duration_is_shown_in_the_unit_that_suits_its_length(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
