"""ostler under circus, with the configuration file that docs/deployment/circus.md shows."""

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


class Circus(NamedTuple):
    """A circusd with the watchers `web` and `api` running, and the ports of their sockets."""

    circus: ProcessManager
    directory: Path
    web: int
    api: int

    def servers(self) -> set[int]:
        return self.circus.children_with("--fd") - self.arbiters()

    def arbiters(self) -> set[int]:
        return self.circus.children_with("--workers")

    def log(self, name: str) -> str:
        path = self.directory / f"{name}.log"
        return path.read_text() if path.exists() else ""

    def wait_started(self, count: int) -> None:
        """Wait until so many plain servers have logged their start, which is when they accept connections."""
        wait_until(
            lambda: len(re.findall("Started server process", self.log("web"))) >= count,
            f"{count} have started",
        )


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Circus]:
    web, api = free_ports(2)
    places = {
        "/run/circus": tmp_path,
        "/var/log/app": tmp_path,
        "/srv/app/.venv/bin": SCRIPTS,
        "/srv/app": tmp_path,
        "port = 8000": f"port = {web}",
        "port = 8001": f"port = {api}",
    }
    (tmp_path / "circus.ini").write_text(substitute(code_block("circus.md", "ini"), places))
    (tmp_path / "main.py").write_text(APP)
    control = ("circusctl", "--endpoint", f"ipc://{tmp_path}/control", "--timeout", "60")
    with ProcessManager(("circusd", "circus.ini"), control, tmp_path) as circus:
        host = Circus(circus, tmp_path, web, api)
        host.wait_started(4)
        wait_until(lambda: host.log("api").count("is ready") == 4, "four workers are ready")
        yield host
        assert circus.stop() == 0
        assert "Traceback" not in host.log("web") + host.log("api")


def deploy(host: Circus) -> None:
    (host.directory / "main.py").write_text(app_version("second"))


def test_reload_replaces_the_plain_servers_without_a_lost_request(host: Circus) -> None:
    before = host.servers()
    assert len(before) == 4
    with Load(host.web) as load:
        deploy(host)
        host.circus.control("reload", "web", "--waiting")
        assert not before & host.servers()
        load.bodies.clear()
        load.wait_answers(100)
        assert set(load.bodies) == {"second"}
    assert load.failures == {}
    assert len(host.servers()) == 4


def test_incr_and_decr_change_the_number_of_plain_servers_without_a_lost_request(host: Circus) -> None:
    before = host.servers()
    with Load(host.web) as load:
        host.circus.control("incr", "web", "--waiting")
        wait_until(lambda: len(host.servers()) == 5, "five plain servers run")
        host.wait_started(5)
        load.wait_answers(100)
        host.circus.control("decr", "web", "3", "--waiting")
        assert len(host.servers()) == 2
        load.wait_answers(100)
    assert load.failures == {}
    assert len(before - host.servers()) >= 2


def test_a_killed_plain_server_is_restarted_and_the_others_serve_on(host: Circus) -> None:
    [victim, *others] = sorted(host.servers())
    with Load(host.web) as load:
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: len(host.servers() - {victim, *others}) == 1, "circus has started another")
        load.wait_answers(100)
    # Only requests in flight in the killed server are lost; no connection is refused.
    assert set(load.failures) <= {"ConnectionResetError", "closed without an answer", "truncated"}
    assert load.failures.total() <= 6
    assert set(others) <= host.servers()


def test_reload_rolls_the_arbiters_workers_over_without_a_lost_request(host: Circus) -> None:
    arbiters, before = host.arbiters(), host.circus.workers()
    assert len(before) == 4
    with Load(host.api) as load:
        deploy(host)
        host.circus.control("reload", "api")
        wait_until(lambda: "generation 2 complete" in host.log("api"), "the roll is complete")
        host.circus.wait_gone(before)
        load.bodies.clear()
        load.wait_answers(100)
        assert set(load.bodies) == {"second"}
    assert load.failures == {}
    assert host.arbiters() == arbiters


def test_a_restart_of_the_arbiter_refuses_no_connection_because_circus_keeps_the_socket(host: Circus) -> None:
    family = host.arbiters() | host.circus.workers()
    with Load(host.api) as load:
        host.circus.control("restart", "api", "--waiting")
        host.circus.wait_gone(family)
        load.wait_answers(100)
    assert load.failures == {}
    wait_until(lambda: len(host.circus.workers()) == 4, "four workers run again")


def test_a_killed_arbiter_leaves_no_orphan_and_is_restarted(host: Circus) -> None:
    [arbiter] = host.arbiters()
    family = {arbiter} | host.circus.workers()
    os.kill(arbiter, signal.SIGKILL)
    host.circus.wait_gone(family)
    wait_until(lambda: len(host.circus.workers()) == 4, "four workers of another arbiter run")
    assert get(host.api, "/healthz").status_code == 200
    assert len(host.arbiters()) == 1


def test_signals_scale_the_arbiters_fleet(host: Circus) -> None:
    host.circus.control("signal", "api", "ttin")
    wait_until(lambda: len(host.circus.workers()) == 5, "there are five workers")
    host.circus.control("signal", "api", "ttou")
    wait_until(lambda: len(host.circus.workers()) == 4, "there are four workers")
