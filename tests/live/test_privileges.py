"""--user, --group and --umask: what root starts, and who serves."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import ostler
from tests.hosting.needs import need, need_namespaces
from tests.live.harness import Ostler, environment, wait_until
from tests.live.test_serving import get
from tests.live.test_upgrade import upgrading

WHO = """
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        open("started", "w").close()
        raise RuntimeError
    body = f"{os.getresuid()} {os.getresgid()} {sorted(os.getgroups())}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
UID = GID = 65534

# Binds what Python needs to where it was, below a directory that everybody may enter.
_OPENED = """
set -e
hidden=$1 count=$2; shift 2
mount --make-rprivate /
mkdir -p .python
mount -t tmpfs tmpfs .python
i=0; for place in "$@"; do i=$((i + 1)); [ $i -le $count ] || break
    mkdir .python/$i; mount --rbind "$place" .python/$i; done
mount -t tmpfs -o mode=755 tmpfs "$hidden"
i=0; while [ $i -lt $count ]; do i=$((i + 1))
    mkdir -p "$1"; mount --rbind .python/$i "$1"; shift; done
exec "$@"
"""


def opened() -> tuple[str, ...]:
    """The program to run: `-m ostler`, with an interpreter that nobody may use as well, wherever it is."""
    places = dict.fromkeys([sys.base_prefix, sys.prefix, str(Path(ostler.__file__).parent.parent)])
    ways = [(place, parent) for place in places for parent in reversed(Path(place).parents)]
    hidden = next((str(parent) for _, parent in ways if not parent.stat().st_mode & stat.S_IXOTH), None)
    if hidden is None:
        return ("-m", "ostler")
    need_namespaces()
    inside = [place for place in places if Path(hidden) in Path(place).parents]
    command = ["unshare", "--mount", "sh", "-c", _OPENED, "sh", hidden, str(len(inside)), *inside]
    command += [sys.executable, "-m", "ostler"]
    return ("-c", f"import os, sys; os.execvp('unshare', [*{command!r}, *sys.argv[1:]])")


def serving(directory: Path, *arguments: str) -> Ostler:
    return Ostler(directory, *arguments, program=opened())


NOBODY = f"({UID}, {UID}, {UID}) ({GID}, {GID}, {GID}) [{GID}]"


@pytest.fixture
def inn() -> Iterator[Path]:
    """A project that nobody may read, and write into."""
    need(os.geteuid() == 0, "root, to become somebody else")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        (Path(name) / "main.py").write_text(WHO)
        yield Path(name)


@pytest.mark.parametrize("workers", [("--workers", "2"), ()])
@pytest.mark.parametrize(
    "who", [("--user", "nobody"), ("--user", "65534"), ("--user", "65534", "--group", "65534")]
)
def test_the_application_runs_as_another_and_the_arbiter_as_root(
    inn: Path, workers: tuple[str, ...], who: tuple[str, ...]
) -> None:
    path = inn / "inn.sock"
    with serving(inn, "main:app", "--uds", str(path), "--uds-permissions", "600", *who, *workers) as ostler:
        ostler.log.wait_for("is ready" if workers else "startup complete", count=2 if workers else 1)
        wait_until(path.exists, "it listens")
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (UID, GID, 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
        assert NOBODY in answer
        assert psutil.Process(ostler.pid).uids().real == (0 if workers else UID)
        if workers:
            assert sorted(ostler.workers().values()) == [1, 2]  # by their titles
        assert ostler.stop() == 0
    assert not path.exists()


def test_workers_of_another_user_are_rolled_upgraded_asked_for_stacks_and_stopped(inn: Path) -> None:
    args = ("main:app", "--port", "0", "--workers", "2", "--user", "nobody")
    with upgrading(inn, *args, program=opened()) as run:
        ostler = run.ostler
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        worker = next(iter(ostler.workers()))
        os.kill(worker, signal.SIGUSR2)
        ostler.log.wait_for(rf"Worker \d \(pid {worker}\) \| ")
        run.upgrade()
        assert ostler.wait() == 0
        assert get(ostler.port).text == NOBODY
        run.stop()
    assert "Permission" not in ostler.log.text


def test_log_files_belong_to_who_writes_them_and_are_reopened(inn: Path) -> None:
    (inn / "log.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=file\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=INFO\nhandlers=file\n"
        "[handler_file]\nclass=FileHandler\nargs=('inn.log',)\n"
    )
    args = ("main:app", "--port", "0", "--workers", "1", "--user", "nobody", "--log-config", "log.ini")
    log = inn / "inn.log"
    with serving(inn, *args) as ostler:
        wait_until(lambda: log.exists() and "is ready" in log.read_text(), "it serves")
        assert log.stat().st_uid == UID
        log.rename(inn / "old.log")
        ostler.send(signal.SIGUSR1)
        wait_until(log.exists, "the new file is there")
        wait_until(lambda: log.stat().st_uid == UID, "and is given away")
        ostler.send(signal.SIGTTIN)
        wait_until(lambda: log.exists() and "Scaled" in log.read_text(), "the new file is written")
        wait_until(lambda: "is ready" in log.read_text(), "the second worker can write it")
        assert ostler.stop() == 0


def test_the_umask_is_the_applications(inn: Path) -> None:
    for workers in (("--workers", "1"), ()):
        with Ostler(inn, "main:app", "--port", "0", "--umask", "027", *workers) as ostler:
            wait_until((inn / "started").exists, "the application has started")
            assert stat.S_IMODE((inn / "started").stat().st_mode) == 0o640
            assert ostler.stop() == 0
        (inn / "started").unlink()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--user", "no-such-user-here"), "user is 'no-such-user-here': there is no such user"),
        (("--group", "no-such-group-here"), "group is 'no-such-group-here': there is no such group"),
        (("--user", "54321"), "give --group as well"),
        (("--umask", "999"), "umask from flag --umask is '999'"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(inn: Path, arguments: tuple[str, ...], words: str) -> None:
    with Ostler(inn, "main:app", "--port", "0", *arguments) as ostler:
        assert ostler.wait() == 2
        wait_until(lambda: words in ostler.log.text, "the line is written")
        assert "Traceback" not in ostler.log.text


def test_who_is_not_root_becomes_nobody_else(inn: Path) -> None:
    # The interpreter need not be where others may look: it becomes nobody once it has begun.
    code = (
        "import os, sys, grp, locale, pwd, ostler.cli.run, ostler.cli.options, ostler.cli.main as m\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(m.main(['main:app', '--port', '0', '--user', 'root']))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=inn, env=environment(None), capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "it takes root to become that" in done.stderr


def test_a_user_that_is_wrong_at_sighup_changes_nothing(inn: Path) -> None:
    (inn / "ostler.toml").write_text("user = 'nobody'\n")
    with serving(inn, "main:app", "--port", "0", "--workers", "1", "--config", "ostler.toml") as ostler:
        ostler.wait_ready(1)
        (inn / "ostler.toml").write_text("user = 'no-such-user-here'\n")
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("no rolling restart.*there is no such user")
        assert ostler.stop() == 0
