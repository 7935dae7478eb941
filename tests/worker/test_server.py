"""What a server makes of its settings."""

from __future__ import annotations

import random

from ostler.settings.declarations import Settings
from ostler.worker.server import request_limit


def test_without_a_limit_there_is_none() -> None:
    assert request_limit(Settings()) is None


def test_the_jitter_is_between_nothing_and_all_of_it() -> None:
    settings = Settings(limit_max_requests=10, limit_max_requests_jitter=3)
    bounds: list[tuple[int, int]] = []

    def highest(low: int, high: int) -> int:
        bounds.append((low, high))
        return high

    assert request_limit(settings, highest) == 13
    assert bounds == [(0, 3)]
    assert {request_limit(settings, random.Random(seed).randint) for seed in range(100)} == {10, 11, 12, 13}
    assert {request_limit(settings) for _ in range(1000)} == {10, 11, 12, 13}
    assert request_limit(Settings(limit_max_requests=10)) == 10
