"""ostler under supervisord, with the configuration file that docs/deployment/supervisord.md shows."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hosting.docs_examples import SCRIPTS, code_block, substitute
from tests.hosting.process_manager import ProcessManager
from tests.live.clients import get
from tests.live.harness import APP, app_version, free_ports, wait_until
from tests.live.load import Load


class Supervisord(NamedTuple):
    """A supervisord with the programs `web` and `api` running, and the ports that they listen on."""

    supervisord: ProcessManager
    directory: Path
    web: int
    api: int

    def servers(self) -> set[int]:
        return self.supervisord.children_with("--fd")

    def arbiters(self) -> set[int]:
        return self.supervisord.children_with("--workers")

    def wait_up(self) -> None:
        wait_until(lambda: len(self.servers()) == 4, "four plain servers run")
        wait_until(lambda: len(self.supervisord.workers()) == 4, "four workers run")
        for name, count in (("web", 4), ("api", 4)):
            log = self.directory / f"{name}.log"
            ready = "Worker .* is ready" if name == "api" else "Started server process"
            wait_until(
                lambda log=log, ready=ready, count=count: (  # type: ignore[misc]
                    log.exists() and len(re.findall(ready, log.read_text())) >= count
                ),
                f"{name} has started",
            )
        assert get(self.web, "/healthz").status_code == 200
        assert get(self.api, "/healthz").status_code == 200


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Supervisord]:
    web, api = free_ports(2)
    places = {
        "/run/supervisor": tmp_path,
        "/var/log/app": tmp_path,
        "/srv/app/.venv/bin": SCRIPTS,
        "/srv/app": tmp_path,
        "127.0.0.1:8000": f"127.0.0.1:{web}",
        "--port 8001": f"--port {api}",
    }
    (tmp_path / "supervisord.conf").write_text(substitute(code_block("supervisord.md", "ini"), places))
    (tmp_path / "main.py").write_text(APP)
    configuration = ("--configuration", str(tmp_path / "supervisord.conf"))
    with ProcessManager(
        ("supervisord", *configuration), ("supervisorctl", *configuration), tmp_path
    ) as supervisord:
        host = Supervisord(supervisord, tmp_path, web, api)
        host.wait_up()
        yield host
        assert supervisord.stop() == 0
        assert "Traceback" not in supervisord.log.text


def deploy(host: Supervisord) -> None:
    (host.directory / "main.py").write_text(app_version("second"))


def test_four_plain_servers_are_restarted_one_by_one_without_a_lost_request(host: Supervisord) -> None:
    before = host.servers()
    with Load(host.web) as load:
        deploy(host)
        for number in range(4):
            host.supervisord.control("restart", f"web:web_{number}")
        wait_until(lambda: get(host.web).text.startswith("second"), "the new code answers")
        load.bodies.clear()
        load.wait_answers(100)
        assert set(load.bodies) == {"second"}
    assert load.failures == {}
    assert not before & host.servers()
    assert len(host.servers()) == 4


def test_a_killed_plain_server_is_restarted_and_the_others_serve_on(host: Supervisord) -> None:
    [victim, *others] = sorted(host.servers())
    with Load(host.web) as load:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(host.servers() - {victim, *others}) == 1, "supervisord has started another")
        load.wait_answers(100)
    # Only requests in flight in the killed server are lost; no connection is refused.
    assert set(load.failures) <= {"ConnectionResetError", "closed without an answer", "truncated"}
    assert load.failures.total() <= 6
    assert set(others) <= host.servers()


def test_hup_rolls_the_arbiters_workers_over_without_a_lost_request(host: Supervisord) -> None:
    arbiters, before = host.arbiters(), host.supervisord.workers()
    with Load(host.api) as load:
        deploy(host)
        assert host.supervisord.control("signal", "HUP", "api") == "api: signalled\n"
        wait_until(
            lambda: "generation 2 complete" in (host.directory / "api.log").read_text(),
            "the roll is complete",
        )
        host.supervisord.wait_gone(before)
        load.bodies.clear()
        load.wait_answers(100)
        assert set(load.bodies) == {"second"}
    assert load.failures == {}
    assert host.arbiters() == arbiters
    assert len(host.supervisord.workers()) == 4


def test_stop_drains_requests_in_flight_and_start_serves_again(host: Supervisord) -> None:
    with Load(host.api, path="/slow?0.3", pause=0.01) as load:
        family = host.arbiters() | host.supervisord.workers()
        assert host.supervisord.control("stop", "api") == "api: stopped\n"
        host.supervisord.wait_gone(family)
    assert set(load.failures) <= {"ConnectionRefusedError", "ConnectionResetError"}
    assert "api: started" in host.supervisord.control("start", "api")
    wait_until(lambda: len(host.supervisord.workers()) == 4, "four workers run again")
    assert get(host.api).status_code == 200


def test_restart_of_the_arbiter_leaves_no_process_behind(host: Supervisord) -> None:
    family = host.arbiters() | host.supervisord.workers()
    with Load(host.api) as load:
        assert host.supervisord.control("restart", "api") == "api: stopped\napi: started\n"
        host.supervisord.wait_gone(family)
        wait_until(lambda: len(host.supervisord.workers()) == 4, "four workers run again")
        # Between stop and start connections are refused, as the page says.
        assert set(load.failures) <= {"ConnectionRefusedError", "ConnectionResetError"}
        load.failures.clear()
        load.wait_answers(100)
        assert load.failures == {}


def test_a_killed_arbiter_leaves_no_orphan_and_is_restarted(host: Supervisord) -> None:
    arbiters, before = host.arbiters(), host.supervisord.workers()
    [arbiter] = arbiters
    os.kill(arbiter, signal.SIGKILL)
    host.supervisord.wait_gone({arbiter} | before)
    wait_until(lambda: len(host.supervisord.workers()) == 4, "four workers of another arbiter run")
    assert not host.arbiters() & arbiters
    wait_until(
        lambda: "RUNNING" in host.supervisord.control("status", "api"), "supervisord has it as RUNNING"
    )
    assert get(host.api).status_code == 200


def test_an_app_that_cannot_start_is_a_spawn_error_with_its_reason_in_the_log(host: Supervisord) -> None:
    (host.directory / "main.py").write_text("raise RuntimeError('no database')\n")
    host.supervisord.control("stop", "api")
    with pytest.raises(AssertionError, match=re.escape("ERROR (spawn error)")):
        host.supervisord.control("start", "api")
    reason = "Error: main:app could not be imported: RuntimeError: no database ("
    wait_until(lambda: reason in (host.directory / "api.log").read_text(), "the log has the reason")
