"""The units in systemd/ under a real systemd: start, reload, restart, watchdog, stop, upgrade, failures."""

from __future__ import annotations

import itertools
import signal
import socket
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.hosting.systemd import UNITS, Application, Machine, installed_application
from tests.live.clients import open_get
from tests.live.harness import APP, app_version, wait_until
from tests.live.load import Load

_names = itertools.count(1)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A booted systemd that all tests of this file share."""
    with Machine(tmp_path_factory.mktemp("machine")) as booted:
        yield booted


@pytest.fixture
def app(machine: Machine) -> Iterator[Application]:
    """A freshly installed application, not started yet."""
    with installed_application(machine, f"shop{next(_names)}") as installed:
        yield installed


def get(app: Application, path: str = "/") -> str:
    return httpx.get(f"http://127.0.0.1:{app.port}{path}", timeout=30).text


def test_the_first_connection_starts_the_service_on_every_socket(app: Application) -> None:
    app.systemctl("start", app.socket)
    assert app.show("ActiveState") == "inactive"

    assert get(app).startswith("one ")

    app.wait_status("2 of 2 workers ready, generation 1")
    assert app.show("ActiveState") == "active"
    assert f"running on http://127.0.0.1:{app.port} from systemd ({app.socket})" in app.journal()
    unix = f"/run/ostler/{app.name}.sock"
    assert f"running on unix socket {unix} from systemd ({app.socket})" in app.journal()
    answer = app.machine.run("curl", "--silent", "--unix-socket", unix, "http://localhost/")
    assert answer.startswith("one ")


def test_a_reload_under_load_loses_no_request_and_systemd_knows_when_it_is_over(app: Application) -> None:
    app.systemctl("start", app.socket)
    app.systemctl("start")
    with Load(app.port) as load:
        app.write(app_version("second"))
        app.systemctl("reload")
        app.wait_status("2 of 2 workers ready, generation 2")
        wait_until(lambda: app.show("ActiveState") == "active", "the reload is over")
        wait_until(lambda: len(app.workers()) == 2, "the old workers are gone")
        load.bodies.clear()
        load.wait_answers(200)
        assert set(load.bodies) == {"second"}
    assert not load.failures


def test_a_reload_of_broken_code_leaves_the_old_workers_serving_and_the_service_active(
    app: Application,
) -> None:
    app.systemctl("start", app.socket)
    app.systemctl("start")
    with Load(app.port) as load:
        app.write("import no_such_module_at_all\n")
        app.systemctl("reload")
        app.wait_status("rolling restart to generation 2 given up")
        wait_until(lambda: app.show("ActiveState") == "active", "the reload is over")
        load.wait_answers(100)
    assert not load.failures
    assert set(load.bodies) == {"one"}


def test_a_restart_under_load_loses_no_request_as_the_socket_stays(app: Application) -> None:
    app.systemctl("start", app.socket)
    app.systemctl("start")
    before = app.show("MainPID")
    with Load(app.port) as load:
        app.systemctl("restart")
        load.wait_answers(200)
    assert app.show("MainPID") != before
    assert not load.failures


def test_the_watchdog_restarts_a_fleet_that_is_stuck(app: Application) -> None:
    # The watchdog is faster than ostler's healthcheck, which would otherwise replace these workers first.
    app.set(OSTLER_WORKERS="2", OSTLER_TIMEOUT_WORKER_HEALTHCHECK="24")
    app.drop_in(app.service, "[Service]\nWatchdogSec=3\n")
    app.systemctl("start", app.socket)
    app.systemctl("start")
    before = app.show("MainPID")
    stuck = app.workers()
    for worker in stuck:
        worker.send_signal(signal.SIGSTOP)

    wait_until(lambda: "Watchdog timeout" in app.journal(), "the watchdog has timed out", timeout=60)
    wait_until(lambda: app.show("MainPID") not in ("0", before), "the service is started again", timeout=60)

    assert get(app).startswith("one ")
    wait_until(lambda: not any(worker.is_running() for worker in stuck), "the stuck workers are gone")
    journal = app.journal()
    # ostler has logged the hang with its evidence, and has not killed the workers.
    assert "stopped by a signal" in journal
    assert "RSS" in journal
    assert "sent by ostler" not in journal


def test_the_watchdog_does_not_restart_a_healthy_fleet(app: Application) -> None:
    app.drop_in(app.service, "[Service]\nWatchdogSec=2\n")
    app.systemctl("start", app.socket)
    app.systemctl("start")
    before = app.show("MainPID")
    first = int(app.show("WatchdogTimestampMonotonic"))
    wait_until(
        lambda: int(app.show("WatchdogTimestampMonotonic")) > first + 5_000_000, "the watchdog was answered"
    )
    assert app.show("MainPID") == before


def test_a_stop_lets_requests_in_flight_finish(app: Application) -> None:
    app.systemctl("start", app.socket)
    app.systemctl("start")
    with open_get(app.port, "/slow?3") as client:
        with open_get(app.port) as other:
            other.recv(1000)
        stop = subprocess.Popen(
            ["nsenter", "-t", str(app.machine.pid), "-m", "-p", "-C", "systemctl", "stop", app.service],
            stderr=subprocess.DEVNULL,
        )
        wait_until(lambda: app.show("ActiveState") == "deactivating", "the service stops")
        app.wait_status("stopping, 1 worker")
        answer = client.recv(1000)
        assert stop.wait(30) == 0
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer.lower()
    assert (app.show("ActiveState"), app.show("Result")) == ("inactive", "success")


def test_an_application_that_fails_to_start_fails_the_unit_and_the_status_has_the_reason(
    app: Application,
) -> None:
    app.write("import no_such_module_at_all\n")
    app.systemctl("start", check=False)
    wait_until(lambda: app.show("ActiveState") == "failed", "systemd gives up", timeout=60)

    assert "No module named 'no_such_module_at_all'" in app.show("StatusText")
    assert app.show("ExecMainStatus") == "3"


def test_clients_of_the_socket_unit_are_refused_once_the_service_has_failed(app: Application) -> None:
    app.write("import no_such_module_at_all\n")
    app.systemctl("start", app.socket)
    with socket.create_connection(("127.0.0.1", app.port)) as client:
        wait_until(lambda: app.show("ActiveState") == "failed", "systemd gives up", timeout=60)
        client.settimeout(30)
        with pytest.raises(ConnectionResetError):
            client.recv(1000)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", app.port))

    app.write(APP)
    app.systemctl("reset-failed")
    app.systemctl("start", app.socket)
    assert get(app).startswith("one ")


def test_a_plain_server_serves_the_socket_and_is_restarted_when_its_loop_is_blocked(app: Application) -> None:
    app.set(OSTLER_WORKERS="")  # empty is unset
    app.drop_in(app.service, "[Service]\nWatchdogSec=4\nTimeoutAbortSec=2\n")
    app.systemctl("start", app.socket)
    assert get(app).startswith("one ")
    app.wait_status("ready")
    before = app.show("MainPID")
    assert not app.workers()
    with open_get(app.port, "/block?60"):
        wait_until(lambda: app.show("MainPID") not in ("0", before), "the service is started again")
    assert get(app).startswith("one ")
    assert "Watchdog timeout" in app.journal()
    assert "in block_the_loop" in app.journal()


def test_a_suspended_arbiter_is_restarted_by_the_watchdog(app: Application) -> None:
    app.drop_in(app.service, "[Service]\nWatchdogSec=2\nTimeoutAbortSec=1\n")
    app.systemctl("start", app.socket)
    app.systemctl("start")
    before = app.show("MainPID")
    app.machine.systemctl("kill", "--signal=SIGSTOP", "--kill-who=main", app.service)
    wait_until(lambda: app.show("MainPID") not in ("0", before), "the service is started again")
    assert get(app).startswith("one ")


def test_workers_of_the_hardened_unit_are_not_root_and_have_no_variables_of_systemd(app: Application) -> None:
    app.write(
        "import os\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] != 'http': raise RuntimeError\n"
        "    names = [n for n in os.environ if n.startswith(('LISTEN_', 'NOTIFY_', 'WATCHDOG_'))]\n"
        "    body = f'{os.getuid()} {names} {os.access(\"/etc/shadow\", os.R_OK)}'.encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': body})\n"
    )
    app.systemctl("start", app.socket)
    uid, rest = get(app).split(" ", 1)
    assert int(uid) != 0
    assert rest == "[] False"


def test_systemd_analyze_verify_accepts_the_units(app: Application) -> None:
    for unit in (app.service, app.socket):
        assert app.machine.run("systemd-analyze", "verify", f"/etc/systemd/system/{unit}") == ""


def test_systemd_analyze_security_rates_the_service_as_ok() -> None:
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        "--threshold=20",
        str(UNITS / "ostler@.service"),
    ]
    done = subprocess.run([*command, "--no-pager"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "OK" in done.stdout.splitlines()[-1]


def test_the_page_shows_the_units_as_they_are() -> None:
    page = (UNITS.parent / "docs" / "deployment" / "systemd.md").read_text(encoding="utf-8")
    for unit in UNITS.glob("ostler@.*"):
        assert f"```ini\n{unit.read_text(encoding='utf-8')}```\n" in page


def upgrade(app: Application) -> str:
    """Replace the arbiter in place, and return the new one's pid once systemd has it as the main process."""
    before = app.show("MainPID")
    app.machine.systemctl("kill", "--signal=SIGUSR2", "--kill-who=main", app.service)
    wait_until(lambda: app.show("MainPID") not in ("0", before), "systemd follows the new arbiter")
    return app.show("MainPID")


def test_an_upgrade_under_load_loses_no_request_and_the_unit_stays_active(app: Application) -> None:
    app.drop_in(app.service, "[Service]\nWatchdogSec=3\n")
    app.systemctl("start", app.socket)
    app.systemctl("start")
    first = app.show("MainPID")
    entered = app.show("ActiveEnterTimestampMonotonic")
    with Load(app.port) as load:
        for text in ("second", "the third"):
            app.write(app_version(text))
            old = app.workers()
            upgrade(app)
            wait_until(lambda old=old: not any(w.is_running() for w in old), "the old workers are gone")  # type: ignore[misc]
            load.bodies.clear()
            load.wait_answers(200)
            assert set(load.bodies) == {text.split()[0]}
        app.write("import no_such_module_at_all\n")
        before = app.show("MainPID")
        app.machine.systemctl("kill", "--signal=SIGUSR2", "--kill-who=main", app.service)
        wait_until(lambda: "Upgrade given up" in app.journal(), "the upgrade is given up")
        load.wait_answers(100)
        assert app.show("MainPID") == before
        # The arbiter that runs now answers the watchdog.
        watched = int(app.show("WatchdogTimestampMonotonic"))
        wait_until(
            lambda: int(app.show("WatchdogTimestampMonotonic")) > watched + 5_000_000,
            "the watchdog is answered",
        )
    assert not load.failures
    assert app.show("ActiveState") == "active"
    assert app.show("ActiveEnterTimestampMonotonic") == entered
    assert app.show("NRestarts") == "0"
    assert "reception only permitted" not in app.machine.run("journalctl", "--no-pager")
    assert before != first
    app.write(APP)
    app.systemctl("reload")
    app.wait_status("2 of 2 workers ready, generation 2")
    app.systemctl("stop")
    assert (app.show("ActiveState"), app.show("Result")) == ("inactive", "success")
    wait_until(lambda: not app.workers(), "no worker is left")


def test_systemd_restarts_the_service_when_an_arbiter_that_has_taken_over_is_killed(app: Application) -> None:
    app.systemctl("start", app.socket)
    app.systemctl("start")
    new = upgrade(app)
    wait_until(lambda: "Stopping arbiter process" in app.journal(), "the old arbiter has ended")
    app.machine.systemctl("kill", "--signal=SIGKILL", "--kill-who=main", app.service)
    wait_until(lambda: app.show("MainPID") not in ("0", new), "the service is started again")
    assert get(app).startswith("one ")
