"""The configurations of the generations of workers, and what a new one changes."""

from __future__ import annotations

from math import inf

import pytest

from ostler.settings.sources import Configuration, Sources
from ostler.supervisor.generations import Generations


def configuration(**values: object) -> Configuration:
    return Sources(values={"app": "main:app", **values}).load()


def generations(first: Configuration, *, timeouts: bool = True) -> Generations:
    return Generations(first, lambda: first, timeouts=timeouts)


def test_a_worker_that_is_spawned_again_gets_the_settings_of_its_own_generation() -> None:
    first, second = configuration(workers=2), configuration(workers=3)
    kept = generations(first)

    before = kept.begin(second, "SIGHUP")

    assert before is first.settings
    assert (kept[1], kept[2], kept.newest) == (first, second, 2)
    assert kept.settings is second.settings


def test_a_setting_that_takes_a_restart_is_named_in_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    kept = generations(configuration(port=8000, workers=2))

    kept.begin(configuration(port=8001, workers=3), "SIGHUP")

    assert [record.getMessage() for record in caplog.records] == [
        "SIGHUP: a new value of port takes a restart"
    ]


@pytest.mark.parametrize(("workers", "size"), [(2, None), (3, 3)], ids=["as before", "changed"])
def test_the_new_size_is_told_only_if_the_number_of_workers_has_changed(
    workers: int, size: int | None
) -> None:
    kept = generations(configuration(workers=2))
    before = kept.begin(configuration(workers=workers), "SIGHUP")

    assert kept.new_size(before, "SIGHUP") == size


def test_settings_without_workers_keep_the_size_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    kept = generations(configuration(workers=2))
    before = kept.begin(configuration(), "SIGHUP")

    assert kept.new_size(before, "SIGHUP") is None
    assert "SIGHUP: workers is not set any more; a plain server takes a restart" in caplog.text


def test_under_reload_workers_may_start_and_stay_silent_for_any_time() -> None:
    timings = generations(configuration(), timeouts=False).timings

    assert (timings.startup, timings.healthcheck) == (inf, inf)
    assert timings.graceful < inf
