"""--user, --group and --umask, when root starts ostler."""

from __future__ import annotations

import json
import os
import pwd
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

import ostler
from tests.hosting.needs import need, need_namespaces
from tests.live.clients import get, read_to_end, send_get
from tests.live.harness import Ostler, environment, wait_until
from tests.live.upgrades import upgrading

APP_WITH_IDS = """
import os


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        open("started", "w").close()
        raise RuntimeError
    body = f"{os.getresuid()} {os.getresgid()} {sorted(os.getgroups())}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
APP_WITH_VARIABLES = """
import json
import os
import subprocess

NAMES = "HOME USER LOGNAME USERNAME TMPDIR TEMP".split()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    seen = {name: os.environ[name] for name in NAMES if name in os.environ}
    printed = subprocess.run(["env"], stdout=subprocess.PIPE).stdout.decode().splitlines()
    inherited = {name: value for name, _, value in (line.partition("=") for line in printed) if name in NAMES}
    body = json.dumps([seen, inherited]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""
UID = GID = 65534

# Replaces `hidden`, a directory that only root may enter, by one that every user may enter, and mounts what
# Python needs in its old place below that.
_ACCESSIBLE = """
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


def accessible_program() -> tuple[str, ...]:
    """Return a `program` for `Ostler` whose interpreter the user `nobody` can read, wherever that is."""
    places = dict.fromkeys([sys.base_prefix, sys.prefix, str(Path(ostler.__file__).parent.parent)])
    pairs = [(place, parent) for place in places for parent in reversed(Path(place).parents)]
    hidden = next((str(parent) for _, parent in pairs if not parent.stat().st_mode & stat.S_IXOTH), None)
    if hidden is None:
        return ("-m", "ostler")
    need_namespaces()
    inside = [place for place in places if Path(hidden) in Path(place).parents]
    command = ["unshare", "--mount", "sh", "-c", _ACCESSIBLE, "sh", hidden, str(len(inside)), *inside]
    command += [sys.executable, "-m", "ostler"]
    return ("-c", f"import os, sys; os.execvp('unshare', [*{command!r}, *sys.argv[1:]])")


def ostler_as_root(directory: Path, *arguments: str, env: Mapping[str, str] | None = None) -> Ostler:
    """Start ostler as root, in a way that its workers can become another user."""
    return Ostler(directory, *arguments, program=accessible_program(), env=env)


NOBODY = f"({UID}, {UID}, {UID}) ({GID}, {GID}, {GID}) [{GID}]"


@pytest.fixture
def inn() -> Iterator[Path]:
    """A project that the user `nobody` can read and write."""
    need(os.geteuid() == 0, "root, to change to another user")
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        (Path(name) / "main.py").write_text(APP_WITH_IDS)
        yield Path(name)


@pytest.mark.parametrize("workers", [("--workers", "2"), ()])
@pytest.mark.parametrize(
    "flags", [("--user", "nobody"), ("--user", "65534"), ("--user", "65534", "--group", "65534")]
)
def test_the_application_runs_as_the_given_user_and_the_arbiter_as_root(
    inn: Path, workers: tuple[str, ...], flags: tuple[str, ...]
) -> None:
    path = inn / "inn.sock"
    with ostler_as_root(
        inn, "main:app", "--uds", str(path), "--uds-permissions", "600", *flags, *workers
    ) as ostler:
        ostler.log.wait_for("is ready" if workers else "startup complete", count=2 if workers else 1)
        wait_until(path.exists, "the socket exists")
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (UID, GID, 0o600)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(str(path))
            send_get(client, close=True)
            answer = read_to_end(client).decode()
        assert NOBODY in answer
        assert psutil.Process(ostler.pid).uids().real == (0 if workers else UID)
        if workers:
            assert sorted(ostler.workers().values()) == [1, 2]  # read from their process titles
        assert ostler.stop() == 0
    assert not path.exists()


ROOTS_VARIABLES = {"HOME": "/root", "USER": "root", "LOGNAME": "root", "USERNAME": "root"}


def variables_of(port: int) -> dict[str, str]:
    """Return the variables that the application has, and sees to be those of the processes that it starts."""
    own, inherited = json.loads(get(port).text)
    assert own == inherited
    found: dict[str, str] = own
    return found


def variables_of_nobody(**more: str) -> dict[str, str]:
    return {"HOME": pwd.getpwuid(UID).pw_dir, "USER": "nobody", "LOGNAME": "nobody", **more}


@pytest.mark.parametrize("workers", [("--workers", "1"), ()], ids=["arbiter", "plain"])
@pytest.mark.parametrize(
    ("flags", "known"),
    [
        (("--user", "nobody"), True),
        (("--user", "65534"), True),
        (("--user", "54321", "--group", "54321"), False),
    ],
)
def test_the_environment_is_that_of_the_user(
    inn: Path, workers: tuple[str, ...], flags: tuple[str, ...], known: bool
) -> None:
    (inn / "main.py").write_text(APP_WITH_VARIABLES)
    (inn / "closed").mkdir(mode=0o700)
    env = {**ROOTS_VARIABLES, "TMPDIR": str(inn / "closed"), "TEMP": str(inn)}
    with ostler_as_root(inn, "main:app", "--port", "0", *flags, *workers, env=env) as ostler:
        expected = variables_of_nobody(TEMP=str(inn)) if known else {"TEMP": str(inn)}
        assert variables_of(ostler.port) == expected
        assert ostler.stop() == 0


def test_the_environment_of_a_group_alone_stays(inn: Path) -> None:
    (inn / "main.py").write_text(APP_WITH_VARIABLES)
    env = {**ROOTS_VARIABLES, "TMPDIR": str(inn)}
    with ostler_as_root(inn, "main:app", "--port", "0", "--group", str(GID), env=env) as ostler:
        assert variables_of(ostler.port) == {**ROOTS_VARIABLES, "TMPDIR": str(inn)}
        assert ostler.stop() == 0


def test_the_environment_follows_a_change_of_user_at_sighup_and_an_upgrade(inn: Path) -> None:
    (inn / "main.py").write_text(APP_WITH_VARIABLES)
    (inn / "ostler.toml").write_text("")
    args = ("main:app", "--port", "0", "--workers", "1", "--config", "ostler.toml")
    with upgrading(inn, *args, ready=1, program=accessible_program(), env=ROOTS_VARIABLES) as run:
        ostler = run.ostler
        assert variables_of(ostler.port) == ROOTS_VARIABLES
        (inn / "ostler.toml").write_text("user = 'nobody'\n")
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        assert variables_of(ostler.port) == variables_of_nobody()
        run.upgrade()
        assert ostler.wait() == 0
        assert variables_of(ostler.port) == variables_of_nobody()
        (inn / "ostler.toml").write_text("")
        os.kill(run.newest, signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete", count=2)
        assert variables_of(ostler.port) == ROOTS_VARIABLES
        run.stop()


def test_workers_of_another_user_can_be_rolled_upgraded_asked_for_stacks_and_stopped(inn: Path) -> None:
    args = ("main:app", "--port", "0", "--workers", "2", "--user", "nobody")
    with upgrading(inn, *args, program=accessible_program()) as run:
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


def test_log_files_belong_to_the_user_of_the_workers_and_are_reopened(inn: Path) -> None:
    (inn / "log.ini").write_text(
        "[loggers]\nkeys=root\n[handlers]\nkeys=file\n[formatters]\nkeys=\n"
        "[logger_root]\nlevel=INFO\nhandlers=file\n"
        "[handler_file]\nclass=FileHandler\nargs=('inn.log',)\n"
    )
    args = ("main:app", "--port", "0", "--workers", "1", "--user", "nobody", "--log-config", "log.ini")
    log = inn / "inn.log"
    with ostler_as_root(inn, *args) as ostler:
        wait_until(lambda: log.exists() and "is ready" in log.read_text(), "the worker is ready")
        assert log.stat().st_uid == UID
        log.rename(inn / "old.log")
        ostler.send(signal.SIGUSR1)
        wait_until(log.exists, "the new file exists")
        wait_until(lambda: log.stat().st_uid == UID, "the new file belongs to the workers' user")
        ostler.send(signal.SIGTTIN)
        wait_until(lambda: log.exists() and "Scaled" in log.read_text(), "the new file is written")
        wait_until(lambda: "is ready" in log.read_text(), "the second worker can write it")
        assert ostler.stop() == 0


def test_the_umask_applies_to_files_of_the_application(inn: Path) -> None:
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
def test_a_wrong_user_group_or_umask_gives_one_line_of_error_and_exit_code_2(
    inn: Path, arguments: tuple[str, ...], words: str
) -> None:
    with Ostler(inn, "main:app", "--port", "0", *arguments) as ostler:
        assert ostler.wait() == 2
        wait_until(lambda: words in ostler.log.text, "the line is written")
        assert "Traceback" not in ostler.log.text


def test_without_root_another_user_is_refused(inn: Path) -> None:
    # The process changes its user after the imports: `nobody` may not be able to read the interpreter.
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
    with ostler_as_root(
        inn, "main:app", "--port", "0", "--workers", "1", "--config", "ostler.toml"
    ) as ostler:
        ostler.wait_ready(1)
        (inn / "ostler.toml").write_text("user = 'no-such-user-here'\n")
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("no rolling restart.*there is no such user")
        assert ostler.stop() == 0
