"""circus, with the file that docs/deployment/circus.md shows."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.hosting.manager import Manager
from tests.hosting.pages import SCRIPTS, free_ports, put, shown
from tests.live.harness import APP, wait_until
from tests.live.load import Load
from tests.live.test_serving import get


class Host(NamedTuple):
    """A circusd with both watchers up, and where its sockets are."""

    circus: Manager
    directory: Path
    web: int
    api: int

    def servers(self) -> set[int]:
        return self.circus.ostlers("--fd") - self.arbiters()

    def arbiters(self) -> set[int]:
        return self.circus.ostlers("--workers")

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait_started(self, count: int) -> None:
        """Wait until so many plain servers have started in all, which they say when they accept."""
        wait_until(
            lambda: len(re.findall("Started server process", self.log("web"))) >= count,
            f"{count} have started",
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    web, api = free_ports(2)
    places = {
        "/run/circus": tmp_path,
        "/var/log/app": tmp_path,
        "/srv/app/.venv/bin": SCRIPTS,
        "/srv/app": tmp_path,
        "port = 8000": f"port = {web}",
        "port = 8001": f"port = {api}",
    }
    (tmp_path / "circus.ini").write_text(put(shown("circus.md", "ini"), places))
    (tmp_path / "main.py").write_text(APP)
    control = ("circusctl", "--endpoint", f"ipc://{tmp_path}/control", "--timeout", "60")
    with Manager(("circusd", "circus.ini"), control, tmp_path) as circus:
        host = Host(circus, tmp_path, web, api)
        host.wait_started(4)
        wait_until(lambda: host.log("api").count("is ready") == 4, "four workers are ready")
        yield host
        assert circus.stop() == 0
        assert "Traceback" not in host.log("web") + host.log("api")


def deploy(host: Host) -> None:
    (host.directory / "main.py").write_text(APP.replace('"one"', '"second"'))


def test_reload_replaces_the_plain_servers_without_a_lost_request(host: Host) -> None:
    before = host.servers()
    assert len(before) == 4
    with Load(host.web) as load:
        deploy(host)
        host.circus.order("reload", "web", "--waiting")
        assert not before & host.servers()
        load.bodies.clear()
        load.wait_answers(100)
        assert set(load.bodies) == {"second"}
    assert load.failures == {}
    assert len(host.servers()) == 4


def test_incr_and_decr_change_their_number_without_a_lost_request(host: Host) -> None:
    before = host.servers()
    with Load(host.web) as load:
        host.circus.order("incr", "web", "--waiting")
        wait_until(lambda: len(host.servers()) == 5, "there are five")
        host.wait_started(5)
        load.wait_answers(100)
        host.circus.order("decr", "web", "3", "--waiting")
        assert len(host.servers()) == 2
        load.wait_answers(100)
    assert load.failures == {}
    assert len(before - host.servers()) >= 2


def test_a_killed_plain_server_is_restarted_and_the_others_serve_on(host: Host) -> None:
    [victim, *others] = sorted(host.servers())
    with Load(host.web) as load:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(host.servers() - {victim, *others}) == 1, "circus has started another")
        load.wait_answers(100)
    # What the killed one had in hand is lost, and only that; nobody is refused.
    assert set(load.failures) <= {"ConnectionResetError", "closed without an answer", "truncated"}
    assert load.failures.total() <= 6
    assert set(others) <= host.servers()


def test_reload_rolls_the_arbiters_workers_over_without_a_lost_request(host: Host) -> None:
    arbiters, before = host.arbiters(), host.circus.workers()
    assert len(before) == 4
    with Load(host.api) as load:
        deploy(host)
        host.circus.order("reload", "api")
        wait_until(lambda: "generation 2 complete" in host.log("api"), "it has rolled")
        host.circus.wait_gone(before)
        load.bodies.clear()
        load.wait_answers(100)
        assert set(load.bodies) == {"second"}
    assert load.failures == {}
    assert host.arbiters() == arbiters


def test_a_restart_of_the_arbiter_refuses_nobody_for_the_socket_is_circus_own(host: Host) -> None:
    family = host.arbiters() | host.circus.workers()
    with Load(host.api) as load:
        host.circus.order("restart", "api", "--waiting")
        host.circus.wait_gone(family)
        load.wait_answers(100)
    assert load.failures == {}
    wait_until(lambda: len(host.circus.workers()) == 4, "four workers run again")


def test_a_killed_arbiter_leaves_no_orphan_and_is_restarted(host: Host) -> None:
    [arbiter] = host.arbiters()
    family = {arbiter} | host.circus.workers()
    os.kill(arbiter, signal.SIGKILL)
    host.circus.wait_gone(family)
    wait_until(lambda: len(host.circus.workers()) == 4, "four workers of another arbiter run")
    assert get(host.api, "/healthz").status_code == 200
    assert len(host.arbiters()) == 1


def test_signals_scale_the_arbiters_fleet(host: Host) -> None:
    host.circus.order("signal", "api", "ttin")
    wait_until(lambda: len(host.circus.workers()) == 5, "there are five workers")
    host.circus.order("signal", "api", "ttou")
    wait_until(lambda: len(host.circus.workers()) == 4, "there are four workers")
