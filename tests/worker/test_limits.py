"""When the limits say that a worker should be replaced; time and memory are given by the tests."""

from __future__ import annotations

import random
from collections.abc import Iterable

from ostler.settings.declarations import Settings
from ostler.worker.limits import PATIENCE, Limits, request_limit

MIB = 2**20


def looks(limits: Limits, memory: Iterable[int | None], start: float = 100.0) -> list[str | None]:
    """Look once a second while the worker has this much in use."""
    return [limits.look(start + i, lambda used=used: used) for i, used in enumerate(memory)]  # type: ignore[misc]


def test_without_limits_nothing_is_watched() -> None:
    assert not Limits(Settings(), 100.0, 0.5).watched


def test_a_random_share_of_the_jitter_is_added_to_the_lifetime() -> None:
    settings = Settings(limit_worker_lifetime=60, limit_worker_lifetime_jitter=30)
    limits = Limits(settings, 100.0, 0.5)
    assert limits.watched
    assert limits.look(174.9, lambda: None) is None
    assert limits.look(175.0, lambda: None) == "Lifetime limit of 60 s exceeded."


def test_too_much_memory_counts_when_it_is_found_three_times_in_a_row() -> None:
    limits = Limits(Settings(limit_worker_rss=100 * MIB), 100.0, 0.0)
    peak = [50 * MIB, 101 * MIB, 200 * MIB, 100 * MIB, 101 * MIB, 102 * MIB]
    assert looks(limits, peak) == [None] * 6
    assert limits.look(106.0, lambda: 103 * MIB) == "Memory limit of 100M exceeded (103 MiB resident)."
    assert limits.warning is None


def test_memory_is_looked_at_once_a_second_however_often_the_loop_ticks() -> None:
    limits = Limits(Settings(limit_worker_rss=100 * MIB), 100.0, 0.0)
    seen = []

    def resident() -> int:
        seen.append(0)
        return 50 * MIB

    for tick in range(40):
        limits.look(100.0 + tick / 20, resident)
    assert len(seen) == 3


def test_a_limit_that_even_a_new_worker_exceeds_is_a_warning_and_replaces_once_a_minute() -> None:
    limits = Limits(Settings(limit_worker_rss=100 * MIB), 100.0, 0.0)
    found = looks(limits, [150 * MIB] * 62)
    assert limits.warning is not None
    assert "100M" in limits.warning
    assert "150 MiB" in limits.warning
    assert found.index("Memory limit of 100M exceeded (150 MiB resident).") == PATIENCE


def test_where_the_memory_in_use_is_not_known_its_limit_does_nothing() -> None:
    limits = Limits(Settings(limit_worker_rss=100 * MIB), 100.0, 0.0)
    assert looks(limits, [None] * 10) == [None] * 10


def test_without_a_limit_of_requests_there_is_none() -> None:
    assert request_limit(Settings(), random.randint) is None


def test_the_jitter_of_requests_is_between_nothing_and_the_whole_jitter() -> None:
    settings = Settings(limit_max_requests=10, limit_max_requests_jitter=3)
    bounds: list[tuple[int, int]] = []

    def highest(low: int, high: int) -> int:
        bounds.append((low, high))
        return high

    assert request_limit(settings, highest) == 13
    assert bounds == [(0, 3)]
    assert {request_limit(settings, random.Random(seed).randint) for seed in range(100)} == {10, 11, 12, 13}
    assert {request_limit(settings, random.randint) for _ in range(1000)} == {10, 11, 12, 13}
    assert request_limit(Settings(limit_max_requests=10), random.randint) == 10
