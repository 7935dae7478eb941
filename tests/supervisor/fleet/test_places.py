"""The fleet's places: back-off, and which workers get new connections."""

from __future__ import annotations

import pytest

from ostler.ipc.messages import Beat, Ready
from ostler.supervisor.fleet.events import Started, Timings
from ostler.supervisor.fleet.places import UNRESPONSIVE, Places, backoff
from ostler.supervisor.fleet.slot_events import Leave

TIMINGS = Timings(startup=20, healthcheck=30, graceful=5)


def serving(size: int) -> Places:
    """Return places whose workers have all been READY since 100.0, with the pids 1, 2, ..."""
    places = Places(TIMINGS)
    places.open_first(size)
    for place in places:
        places.spawn(place.tenant, 100.0)
        place.tenant.handle(Started(place.tenant.ticket, place.number), 100.0)
        place.tenant.handle(Ready(), 100.0)
    return places


def test_the_back_off_doubles_up_to_thirty_seconds() -> None:
    assert [backoff(failures) for failures in (1, 2, 3, 7, 8, 1000)] == [0.5, 1, 2, 30, 30, 30]


def test_a_worker_that_is_silent_for_a_moment_gets_no_new_connections() -> None:
    places = serving(3)
    now = 100.0 + UNRESPONSIVE
    beat = Beat(1, 1, 0, 0, 0, 0, 0.0, draining=False)
    for number in (1, 3):
        places[number].tenant.handle(beat, now)
    assert places.responsive(now) == {1, 3}


def test_all_ready_workers_get_connections_if_none_was_heard_lately() -> None:
    places = serving(3)
    places.close_one(101.0)
    assert places.responsive(200.0) == {1, 2}


def test_the_lowest_free_number_is_opened_first() -> None:
    places = serving(3)
    places.remove(2)
    assert places.open().number == 2
    assert places.open().number == 4
    assert [place.number for place in places] == [1, 2, 3, 4]


def test_a_place_that_is_closed_counts_among_the_leaving_until_its_process_is_reaped() -> None:
    places = serving(2)
    places.close_one(101.0)
    assert len(places) == 1
    [leaving] = places.leaving
    assert leaving.number == 2
    places.forget(leaving)
    assert [slot.number for slot in places.slots()] == [1]


def test_a_slot_without_a_process_is_forgotten_as_soon_as_it_is_told_to_leave() -> None:
    places = Places(TIMINGS)
    places.open_first(1)
    assert places.close_all(Leave(), 100.0) == []
    assert list(places.slots()) == []


def test_a_place_without_a_successor_cannot_promote_one() -> None:
    with pytest.raises(AssertionError, match="no successor"):
        serving(1)[1].promote()


def test_the_repr_shows_the_open_places() -> None:
    places = serving(2)
    places.close_one(101.0)
    assert repr(places) == "<Places [1], 1 leaving>"
