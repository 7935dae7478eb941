"""ostler under a fake service manager: sockets that it passes, and notifications that it receives."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.live.clients import get, open_get, send_get
from tests.live.fake_systemd import SOCKET_ACTIVATED, NotifySocket, PassedSockets
from tests.live.harness import APP, Ostler

WORKERS = pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["plain", "arbiter"])


def ask(family: int, address: str | tuple[str, int]) -> bytes:
    """Send a request to an address of the given family, and return the beginning of the response."""
    with socket.socket(family) as client:
        client.settimeout(30)
        client.connect(address)
        send_get(client, close=True)
        return client.recv(65536)


@WORKERS
def test_passed_sockets_of_both_families_are_served_and_stay_when_ostler_ends(
    project: Path, workers: tuple[str, ...]
) -> None:
    path = project / "app.sock"
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
        unix.listen()
        passed = PassedSockets(tcp, unix)
        env = {**passed.environment, "LISTEN_FDNAMES": "web:admin"}
        with Ostler(
            project, "main:app", *workers, program=SOCKET_ACTIVATED, env=env, pass_fds=passed.fds
        ) as ostler:
            assert b"200 OK" in ask(socket.AF_INET, tcp.getsockname())
            assert b"200 OK" in ask(socket.AF_UNIX, str(path))
            assert f"running on http://127.0.0.1:{tcp.getsockname()[1]} from systemd (web)" in ostler.log.text
            assert f"running on unix socket {path} from systemd (admin)" in ostler.log.text
            assert ostler.stop() == 0
        # The manager still has the socket: a client waits in its queue for the next start.
        with socket.create_connection(tcp.getsockname()):
            pass
        assert path.exists()
        passed.close()


def test_settings_that_name_an_address_override_passed_sockets(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp:
        passed = PassedSockets(tcp)
        env, fds = passed.environment, passed.fds
        with Ostler(
            project, "main:app", "--port", "0", program=SOCKET_ACTIVATED, env=env, pass_fds=fds
        ) as ostler:
            assert ostler.port != tcp.getsockname()[1]
            assert "Sockets from systemd are not used" in ostler.log.text
            assert "port from flag --port" in ostler.log.text
        with Ostler(
            project, "main:app", "--fd", "3", program=SOCKET_ACTIVATED, env=env, pass_fds=fds
        ) as ostler:
            assert ostler.port == tcp.getsockname()[1]
            assert "not used" not in ostler.log.text
        passed.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"LISTEN_FDS": "two"}, "LISTEN_FDS is 'two': expected a number"),
        ({"LISTEN_FDS": "40"}, "LISTEN_FDS=40: descriptor "),
        ({"LISTEN_FDNAMES": "a:b"}, "LISTEN_FDNAMES is 'a:b': expected 1 names"),
    ],
)
def test_wrong_variables_give_one_line_of_error_and_exit_code_4(
    project: Path, wrong: dict[str, str], message: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, NotifySocket(project / "notify") as manager:
        passed = PassedSockets(tcp)
        env = {**passed.environment, **wrong, "NOTIFY_SOCKET": manager.address}
        with Ostler(project, "main:app", program=SOCKET_ACTIVATED, env=env, pass_fds=passed.fds) as ostler:
            assert ostler.wait() == 4
            assert ostler.log.text.count("\n") == 1
            assert ostler.log.text.startswith(f"Error: {message}")
        assert manager.wait_for("STATUS=").startswith(f"STATUS={message}")
        passed.close()


def test_the_manager_is_notified_of_the_start_a_reload_and_the_stop_of_a_fleet(project: Path) -> None:
    with NotifySocket(f"@ostler-test-{os.getpid()}") as manager:
        env = {"NOTIFY_SOCKET": manager.address}
        with Ostler(project, "main:app", "--port", "0", "--workers", "2", env=env) as ostler:
            manager.wait_for("READY=1")
            assert "2 of 2 workers ready" in manager.messages[-1]
            assert manager.wait_for("MAINPID=") == f"MAINPID={ostler.pid}"
            before = time.monotonic_ns() // 1000
            ostler.send(signal.SIGHUP)
            stamp = int(manager.wait_for("MONOTONIC_USEC=").partition("=")[2])
            assert before <= stamp <= time.monotonic_ns() // 1000
            manager.wait_for("READY=1", 2)
            assert "2 of 2 workers ready, generation 2" in manager.wait_for("STATUS=2 of 2", 2)
            assert ostler.stop() == 0
    states = [f for f in manager.fields if f in ("READY=1", "RELOADING=1", "STOPPING=1")]
    assert states == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
    assert manager.fields[0] == "STATUS=0 of 2 workers ready"
    assert any(field.startswith("EXTEND_TIMEOUT_USEC=") for field in manager.fields)


def test_the_manager_is_notified_of_the_end_and_the_reason_of_a_failed_reload(project: Path) -> None:
    (project / "ostler.toml").write_text("workers = 1\nport = 0\n")
    with NotifySocket(project / "notify") as manager:
        env = {"NOTIFY_SOCKET": manager.address}
        with Ostler(project, "main:app", "--config", "ostler.toml", env=env) as ostler:
            manager.wait_for("READY=1")
            (project / "ostler.toml").write_text("workers = 1\nport = 'x'\n")
            ostler.send(signal.SIGHUP)
            manager.wait_for("RELOADING=1")
            manager.wait_for("READY=1", 2)
            assert "last reload refused: port from ostler.toml line 2" in manager.fields[-1]
            (project / "ostler.toml").write_text("workers = 1\nport = 0\n")
            (project / "main.py").write_text("import no_such_module\n")
            ostler.send(signal.SIGHUP)
            manager.wait_for("READY=1", 3)
            assert "rolling restart to generation 2 given up" in manager.fields[-1]
            assert ostler.stop() == 0


@WORKERS
def test_the_last_status_of_a_failed_start_is_its_reason(project: Path, workers: tuple[str, ...]) -> None:
    (project / "main.py").write_text("import no_such_module\n")
    with NotifySocket(project / "notify") as manager:
        env = {"NOTIFY_SOCKET": manager.address}
        with Ostler(project, "main:app", "--port", "0", *workers, env=env) as ostler:
            assert ostler.wait() == 3
        last = [field for field in manager.fields if field.startswith("STATUS=")][-1]
    assert "No module named 'no_such_module'" in last
    assert "READY=1" not in manager.fields


def test_the_manager_is_notified_of_the_error_number_of_a_busy_address(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, NotifySocket(project / "notify") as manager:
        port = str(taken.getsockname()[1])
        with Ostler(project, "main:app", "--port", port, env={"NOTIFY_SOCKET": manager.address}) as ostler:
            assert ostler.wait() == 4
        manager.wait_for("ERRNO=98")


def test_a_plain_server_notifies_that_it_is_ready_that_its_loop_runs_and_that_it_stops(project: Path) -> None:
    with NotifySocket(project / "notify") as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
        with Ostler(project, "main:app", "--port", "0", env=env) as ostler:
            manager.wait_for("READY=1")
            manager.wait_for("WATCHDOG=1", 3)
            assert get(ostler.port).status_code == 200
            assert ostler.stop() == 0
        manager.wait_for("STOPPING=1")
    assert manager.fields[0] == "STATUS=starting"
    assert "STATUS=ready" in manager.fields


def test_a_plain_server_with_a_blocked_loop_sends_nothing_to_the_watchdog(project: Path) -> None:
    with NotifySocket(project / "notify") as manager:
        env = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
        with Ostler(project, "main:app", "--port", "0", env=env) as ostler:
            manager.wait_for("WATCHDOG=1")
            with open_get(ostler.port, "/block?4") as client:
                before = len(manager.messages)
                client.recv(1000)
                during = manager.messages[before:]
            manager.wait_for("WATCHDOG=1", before + 1)
            assert ostler.stop() == 0
    # The last one before the block, and the first one after it.
    assert sum("WATCHDOG=1" in message for message in during) <= 2


def test_workers_and_the_application_do_not_have_the_managers_variables(project: Path) -> None:
    shown = (
        "body = f\"{[n for n in os.environ if n.startswith(('LISTEN_', 'NOTIFY_', 'WATCHDOG_'))]}\".encode()"
    )
    (project / "main.py").write_text(
        APP.replace('    if scope["path"] == "/server"', f"    {shown}\n    if False")
    )
    with socket.create_server(("127.0.0.1", 0)) as tcp, NotifySocket(project / "notify") as manager:
        passed = PassedSockets(tcp)
        env = {**passed.environment, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "9000000"}
        for workers in ([], ["--workers", "1"]):
            with Ostler(
                project, "main:app", *workers, program=SOCKET_ACTIVATED, env=env, pass_fds=passed.fds
            ) as ostler:
                assert get(ostler.port).text == "[]"
        passed.close()
