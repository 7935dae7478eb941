"""SIGUSR2: a new arbiter takes over the sockets from the old one, and no request is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import sys
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.live.clients import send_get, slow_request
from tests.live.fake_systemd import SOCKET_ACTIVATED, NotifySocket, PassedSockets
from tests.live.harness import APP, PATIENCE, Ostler, app_version, free_ports, wait_until
from tests.live.load import Load
from tests.live.upgrades import ARGUMENTS, WAITING, upgrading


def test_two_upgrades_in_a_row_lose_no_request(project: Path) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        with Load(ostler.port) as load:
            for text in ("second", "the third"):
                (project / "main.py").write_text(app_version(text))
                old = run.newest
                run.upgrade()
                wait_until(partial(has_ended, old), "the old arbiter has ended")
                load.bodies.clear()
                load.wait_answers(200)
                assert set(load.bodies) == {text.split()[0]}
        assert ostler.wait() == 0
        run.stop()
    assert not load.failures
    assert load.answered > 400
    assert "Traceback" not in ostler.log.text
    assert "ERROR" not in ostler.log.text


def has_ended(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


FAILURES = {
    "an application that cannot be imported": (
        "main.py",
        "raise ImportError('half deployed')\n",
        "half deployed",
    ),
    "a setting that is wrong": (
        "pyproject.toml",
        "[tool.ostler]\nbacklog = 'much'\n",
        "backlog from pyproject.toml",
    ),
    "an installation without ostler": (
        "ostler.py",
        "raise SystemError('half installed')\n",
        "half installed",
    ),
    "no arbiter any more": (
        "pyproject.toml",
        "[tool.ostler]\nreload = true\n",
        "an upgrade takes an arbiter",
    ),
}


@pytest.mark.parametrize("what", FAILURES)
def test_a_new_arbiter_that_fails_loses_no_request_and_the_log_says_why(project: Path, what: str) -> None:
    name, text, reason = FAILURES[what]
    good = (project / name).read_text() if (project / name).exists() else None
    with upgrading(project) as run:
        ostler = run.ostler
        workers = set(ostler.workers())
        with Load(ostler.port) as load:
            (project / name).write_text(text)
            ostler.send(signal.SIGUSR2)
            ostler.log.wait_for(rf"Upgrade given up, this arbiter serves on: .*it has ended: .*{reason}")
            load.wait_answers(100)
            wait_until(lambda: set(ostler.workers()) == workers, "only the old workers are left")
            (project / name).unlink() if good is None else (project / name).write_text(good)
            ostler.send(signal.SIGUSR2)
            ostler.log.wait_for(r"has taken over from")
            run.wait_started(2)
            assert ostler.wait() == 0
            load.wait_answers(100)
        run.stop()
    assert not load.failures


def test_an_upgrade_is_given_up_when_the_new_arbiter_is_not_ready_in_time(project: Path) -> None:
    # The limit is the time-out of a worker's startup, 1 s here, and a margin of 10 s for the interpreter.
    with upgrading(project, *ARGUMENTS, "--timeout-worker-startup", "1") as run:
        (project / "ostler.py").write_text("import signal\nwhile True:\n    signal.pause()\n")
        run.ostler.send(signal.SIGUSR2)
        run.ostler.log.wait_for(
            r"given up, this arbiter serves on.*not ready after 11 s", timeout=2 * PATIENCE
        )
        assert run.ostler.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_to_stop_during_an_upgrade_stops_both_arbiters(
    project: Path, number: signal.Signals
) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        (project / "main.py").write_text(WAITING + APP)
        ostler.send(signal.SIGUSR2)
        ostler.log.wait_for(r"handed over by")
        wait_until((project / "waiting").exists, "the new application is imported")
        assert ostler.stop(number) == 0
    assert "Upgrade given up: ostler stops" in ostler.log.text
    assert "has taken over" not in ostler.log.text


def test_signals_during_an_upgrade_are_carried_out_by_the_new_arbiter(project: Path) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        (project / "main.py").write_text(WAITING + APP)
        ostler.send(signal.SIGUSR2)
        wait_until((project / "waiting").exists, "the new application is imported")
        ostler.send(signal.SIGUSR2)
        ostler.log.wait_for(r"SIGUSR2: no upgrade, one is under way already: new arbiter process \[\d+\]")
        for number in (signal.SIGTTIN, signal.SIGHUP, signal.SIGUSR1):
            ostler.send(number)
        ostler.log.wait_for("SIGHUP: waits until the upgrade is over")
        new = run.wait_started()
        os.kill(new, signal.SIGUSR2)
        ostler.log.wait_for(
            "SIGUSR2: no upgrade, this arbiter is the new one of an upgrade that is under way"
        )
        (project / "go").touch()
        assert ostler.wait() == 0
        ostler.log.wait_for("Scaled from 2 workers to 3")
        ostler.log.wait_for("Rolling restart to generation 2 complete: 3 workers")
        run.stop()


def test_signals_during_a_failed_upgrade_are_carried_out_by_the_old_arbiter(project: Path) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        (project / "main.py").write_text(WAITING + "raise ImportError('half deployed')\n")
        ostler.send(signal.SIGUSR2)
        wait_until((project / "waiting").exists, "the new application is imported")
        ostler.send(signal.SIGTTIN)
        ostler.log.wait_for("SIGTTIN: waits until the upgrade is over")
        (project / "go").touch()
        ostler.log.wait_for("Upgrade given up, this arbiter serves on")
        (project / "main.py").write_text(APP)
        ostler.log.wait_for("Scaled from 2 workers to 3")
        ostler.wait_ready(3)
        assert ostler.stop() == 0


def test_an_upgrade_during_a_roll_loses_no_request(project: Path) -> None:
    with upgrading(project) as run:
        with Load(run.ostler.port) as load:
            run.ostler.send(signal.SIGHUP)
            run.ostler.log.wait_for("Rolling restart to generation 2 begins")
            run.upgrade()
            assert run.ostler.wait() == 0
            load.wait_answers(100)
        run.stop()
    assert not load.failures


def test_an_upgrade_is_refused_before_the_first_worker_is_ready_and_during_a_stop(project: Path) -> None:
    (project / "main.py").write_text(WAITING + APP)
    with Ostler(project, *ARGUMENTS) as ostler:
        wait_until((project / "waiting").exists, "the application is imported")
        ostler.send(signal.SIGUSR2)
        ostler.log.wait_for("SIGUSR2: no upgrade, no worker has been ready yet")
        (project / "go").touch()
        ostler.wait_ready(2)
        with slow_request(ostler.port, 1):
            ostler.send(signal.SIGTERM)
            ostler.log.wait_for("Stopping: 2 workers")
            ostler.send(signal.SIGUSR2)
            ostler.log.wait_for("SIGUSR2: no upgrade, ostler stops")
        assert ostler.wait() == 0


def test_an_upgrade_is_refused_under_reload(project: Path) -> None:
    with Ostler(project, "main:app", "--port", "0", "--reload") as ostler:
        ostler.wait_ready(1)
        ostler.send(signal.SIGUSR2)
        ostler.log.wait_for("SIGUSR2: no upgrade, as there is none under --reload")
        assert ostler.stop() == 0


def test_the_new_arbiter_survives_the_death_of_the_old_one(project: Path) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        (project / "main.py").write_text(WAITING + app_version("second"))
        ostler.send(signal.SIGUSR2)
        wait_until((project / "waiting").exists, "the new application is imported")
        run.wait_started()
        ostler.send(signal.SIGKILL)
        ostler.log.wait_for(r"The old arbiter process \[\d+\] has gone before its time")
        (project / "go").touch()
        ostler.log.wait_for("has taken over from")
        with Load(ostler.port) as load:
            load.wait_answers(50)
        assert set(load.bodies) == {"second"}
        run.stop()
    assert not load.failures


def test_the_old_arbiter_survives_the_death_of_the_new_one(project: Path) -> None:
    with upgrading(project) as run:
        ostler = run.ostler
        with Load(ostler.port) as load:
            (project / "main.py").write_text(WAITING + APP)
            ostler.send(signal.SIGUSR2)
            wait_until((project / "waiting").exists, "the new application is imported")
            ostler.family()
            os.kill(int(ostler.log.wait_for(r"started new arbiter process \[(\d+)\]")[1]), signal.SIGKILL)
            ostler.log.wait_for("this arbiter serves on: new arbiter process .* it has ended, without a word")
            load.wait_answers(100)
            (project / "go").touch()
        assert ostler.stop() == 0
    assert not load.failures


def test_the_path_of_a_unix_socket_stays_and_the_last_arbiter_removes_it(project: Path) -> None:
    path = project / "inn.sock"
    with upgrading(project, "main:app", "--uds", str(path), "--workers", "2") as run:
        inode = path.stat().st_ino
        good = (project / "main.py").read_text()
        (project / "main.py").write_text("raise ImportError\n")
        run.ostler.send(signal.SIGUSR2)
        run.ostler.log.wait_for("Upgrade given up")
        assert path.stat().st_ino == inode
        (project / "main.py").write_text(good)
        run.ostler.send(signal.SIGUSR2)
        run.ostler.log.wait_for("has taken over from")
        run.wait_started(2)
        assert run.ostler.wait() == 0
        assert path.stat().st_ino == inode
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            send_get(client)
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        run.stop()
    assert not path.exists()


def test_an_inherited_descriptor_is_handed_to_the_new_arbiter(project: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        fd = listening.fileno()
        args = ("main:app", "--fd", str(fd), "--workers", "2")
        with upgrading(project, *args, pass_fds=(fd,)) as run:
            with Load(listening.getsockname()[1]) as load:
                run.upgrade()
                assert run.ostler.wait() == 0
                run.upgrade()
                load.wait_answers(100)
            run.stop()
    assert not load.failures


def test_sockets_of_a_service_manager_are_handed_over_and_it_is_notified_of_the_new_main_pid(
    project: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, NotifySocket(project / "notify") as manager:
        passed = PassedSockets(listening)
        env = {**passed.environment, "NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
        args = ("main:app", "--workers", "2")
        with upgrading(project, *args, program=SOCKET_ACTIVATED, env=env, pass_fds=passed.fds) as run:
            passed.close()
            manager.wait_for("READY=1")
            with Load(listening.getsockname()[1]) as load:
                new = run.upgrade()
                manager.wait_for("READY=1", count=2)
                assert run.ostler.wait() == 0
                load.wait_answers(50)
            fields = manager.fields
            # The old arbiter names the new one: until then only its own messages count (NotifyAccess=main).
            assert [f for f in fields if f.startswith("MAINPID=")] == [
                f"MAINPID={run.ostler.pid}",
                f"MAINPID={new}",
                f"MAINPID={new}",
            ]
            assert "STOPPING=1" not in fields
            assert fields.count("STATUS=2 of 2 workers ready, generation 1") <= 2
            count = fields.count("WATCHDOG=1")
            manager.wait_for("WATCHDOG=1", count=count + 2)
            run.stop()
        assert "STOPPING=1" in manager.fields
    assert not load.failures
    assert f"handed over by [{run.ostler.pid}]" in run.ostler.log.text


def test_an_upgrade_reads_new_settings_and_opens_a_new_address(project: Path) -> None:
    config = project / "ostler.toml"
    config.write_text("workers = 1\nport = 0\n")
    [port] = free_ports(1)
    with upgrading(project, "main:app", "--config", "ostler.toml", ready=1) as run:
        config.write_text("workers = 3\nport = 0\n")
        run.upgrade()
        run.ostler.wait_ready(4)
        config.write_text(f"workers = 1\nport = {port}\n")
        run.upgrade()
        with Load(port) as load:
            load.wait_answers(10)
        run.stop()
    assert not load.failures


def test_a_script_that_calls_ostler_run_is_started_again(project: Path) -> None:
    script = "import ostler\nif __name__ == '__main__':\n    ostler.run('main:app', port=0, workers=2)\n"
    (project / "serve.py").write_text(script)
    with upgrading(project, "an argument", program=("serve.py",)) as run:
        with Load(run.ostler.port) as load:
            (project / "serve.py").write_text(script.replace("workers=2", "workers=1"))
            run.upgrade()
            assert run.ostler.wait() == 0
            load.wait_answers(50)
        assert len(run.ostler.workers()) == 1
        run.stop()
    assert not load.failures


def test_an_upgrade_is_refused_for_a_script_from_standard_input(project: Path) -> None:
    (project / "in").write_text("import ostler\nostler.run('main:app', port=0, workers=1)\n")
    with (project / "in").open() as stdin, Ostler(project, program=("-",), stdin=stdin) as ostler:
        ostler.wait_ready(1)
        ostler.send(signal.SIGUSR2)
        ostler.log.wait_for(
            "SIGUSR2: no upgrade, as ostler was not started by a command line that can be repeated"
        )
        assert ostler.stop() == 0


def test_a_script_behind_a_link_runs_on_the_python_of_the_new_release(project: Path) -> None:
    """As with /srv/current/.venv/bin/ostler, whose first line names the interpreter of its own release."""
    for release in ("one", "two"):
        place = project / release
        place.mkdir()
        (place / "python").symlink_to(sys.executable)
        script = place / "inn"
        script.write_text(
            f"#!{place}/python\nimport sys\nfrom ostler.cli.main import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
        shutil.copy(project / "main.py", place)
    current = project / "current"
    current.symlink_to("one")
    # The interpreter is a link to the test's own Python, which finds its modules by PYTHONPATH.
    env = {"PWD": str(current), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    shebang = ("-c", f"import os, sys; os.execv({str(current / 'inn')!r}, ['inn', *sys.argv[1:]])")
    with upgrading(current, *ARGUMENTS, program=shebang, env=env) as run:
        (project / "next").symlink_to("two")
        (project / "next").rename(current)
        new = run.upgrade()
        assert psutil.Process(new).cmdline()[0] == str(project / "two" / "python")
        assert Path(psutil.Process(new).cwd()) == project / "two"
        run.stop()
    assert re.search(r"has taken over from", run.ostler.log.text)
