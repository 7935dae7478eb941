"""Rolling restarts and scaling under constant load: no request fails."""

import signal
from pathlib import Path

from tests.live.harness import APP, Ostler, app_version, serving, wait_until
from tests.live.load import Load


def test_a_roll_loses_no_request_and_starts_the_new_code(project: Path) -> None:
    with serving(project, "--workers", "4") as ostler:
        old = set(ostler.workers())
        with Load(ostler.port) as load:
            (project / "main.py").write_text(app_version("second"))
            ostler.send(signal.SIGHUP)
            ostler.wait_ready(8)
            ostler.wait_workers_gone(old)
            load.bodies.clear()
            load.wait_answers(200)
            assert set(load.bodies) == {"second"}
        assert sorted(ostler.workers().values()) == [1, 2, 3, 4]
        assert ostler.stop() == 0
    assert not load.failures
    assert load.answered > 400


def test_several_sighups_during_a_roll_cause_one_more_roll(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        with Load(ostler.port) as load:
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for(r"Worker \d+ \(pid \d+\) is ready", count=3)
            for _ in range(5):
                ostler.send(signal.SIGHUP)
                load.wait_answers(5)
            ostler.log.wait_for(r"Rolling restart to generation \d+ complete", count=2)
            load.wait_answers(100)
        assert ostler.stop() == 0
    assert not load.failures
    assert ostler.log.text.count(") is ready") == 6


def test_scaling_up_and_down_loses_no_request(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        with Load(ostler.port) as load:
            for _ in range(2):
                ostler.send(signal.SIGTTIN)
                load.wait_answers(1)
            ostler.wait_ready(4)
            assert sorted(ostler.workers().values()) == [1, 2, 3, 4]
            load.wait_answers(100)
            for left in (3, 2, 1):
                ostler.send(signal.SIGTTOU)
                ostler.wait_worker_count(left)
            ostler.send(signal.SIGTTOU)
            load.wait_answers(100)
            assert len(ostler.workers()) == 1
        assert ostler.stop() == 0
    assert not load.failures


def test_new_code_that_raises_at_import_loses_no_request_and_mended_code_is_rolled_out(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        old = set(ostler.workers())
        with Load(ostler.port) as load:
            (project / "main.py").write_text("x = 1\n\nraise ImportError('half deployed')\n")
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for(r"given up.*half deployed.*main.py, line 3.*serve on")
            load.wait_answers(100)
            wait_until(lambda: set(ostler.workers()) == old, "only the old workers are left")
            (project / "main.py").write_text(app_version("mended"))
            ostler.send(signal.SIGHUP)
            ostler.wait_workers_gone(old)
            load.bodies.clear()
            load.wait_answers(100)
            assert set(load.bodies) == {"mended"}
        assert ostler.stop() == 0
    assert not load.failures


def test_new_code_that_exits_right_after_it_is_ready_leaves_the_old_workers_serving(project: Path) -> None:
    with serving(project, "--workers", "2") as ostler:
        old = set(ostler.workers())
        with Load(ostler.port) as load:
            (project / "main.py").write_text(APP + CRASHING)
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for(r"given up.*exited with code 7.*serve on")
            load.wait_answers(100)
            assert set(ostler.workers()) == old
    # Only requests in flight in the new worker when it crashed may be lost.
    assert load.failures.total() <= 6


CRASHING = """
import threading

serving = app


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        threading.Timer(0.3, os._exit, (7,)).start()
    await serving(scope, receive, send)
"""


def test_settings_that_are_wrong_at_sighup_change_nothing(project: Path) -> None:
    config = project / "ostler.toml"
    config.write_text("workers = 2\nlog_level = 'info'\n")
    with Ostler(project, "main:app", "--port", "0", "--config", "ostler.toml") as ostler:
        ostler.wait_ready(2)
        old = set(ostler.workers())
        with Load(ostler.port) as load:
            config.write_text("workers = 2\nlog_level = 'loud'\n")
            ostler.send(signal.SIGHUP)
            ostler.log.wait_for(r"no rolling restart.*log.level.*ostler.toml.*line 2")
            load.wait_answers(50)
            assert set(ostler.workers()) == old
            config.write_text("workers = 3\nlog_level = 'info'\n")
            ostler.send(signal.SIGHUP)
            ostler.wait_ready(5)
            wait_until(
                lambda: sorted(ostler.workers().values()) == [1, 2, 3], "the workers have slots 1 to 3"
            )
            assert not old & set(ostler.workers())
        assert ostler.stop() == 0
    assert not load.failures


def test_workers_that_reach_their_maximum_of_requests_are_replaced_without_a_lost_request(
    project: Path,
) -> None:
    limits = ["--limit-max-requests", "100", "--limit-max-requests-jitter", "50"]
    with serving(project, "--workers", "2", *limits) as ostler:
        with Load(ostler.port) as load:
            ostler.wait_ready(6)
        assert ostler.stop() == 0
    assert not load.failures


def test_a_roll_follows_a_link_to_the_new_release(project: Path) -> None:
    for release in ("one", "two"):
        (project / release).mkdir()
        (project / release / "main.py").write_text(app_version(release))
    current = project / "current"
    current.symlink_to("one")
    # A shell's `cd current` leaves the link's own path in PWD.
    with serving(current, "--workers", "2", env={"PWD": str(current)}) as ostler:
        old = set(ostler.workers())
        with Load(ostler.port) as load:
            next_link = project / "next"
            next_link.symlink_to("two")
            next_link.rename(current)
            ostler.send(signal.SIGHUP)
            ostler.wait_ready(4)
            ostler.wait_workers_gone(old)
            load.bodies.clear()
            load.wait_answers(100)
            assert set(load.bodies) == {"two"}
        assert ostler.stop() == 0
    assert not load.failures
