"""--reload: what is asked during a restart waits, and is answered by the new code."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.harness import APP, PATIENCE, Ostler, environment, wait_until
from tests.live.load import elapsed

RELOADING = r"WatchFiles detected changes in .*Reloading\.\.\."

STREAM = """
serving = app


async def app(scope, receive, send):
    if scope["type"] == "http" and scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while True:
            await send({"type": "http.response.body", "body": b"more ", "more_body": True})
            await asyncio.sleep(0.05)  # in the app
    await serving(scope, receive, send)
"""


def version(text: str) -> str:
    return APP.replace('VERSION = "one"', f'VERSION = "{text}"')


def save(project: Path, source: str, name: str = "main.py") -> None:
    """Write as a careful editor does: a file beside it, then renamed."""
    beside = project / f"{name}.tmp"
    beside.write_text(source)
    beside.rename(project / name)


def get(port: int, path: str = "/") -> str:
    """Ask on a connection of its own; the answer may take its time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def begin(project: Path, *args: str, **more: object) -> Ostler:
    return Ostler(project, "main:app", "--port", "0", "--reload", *args, **more)  # type: ignore[arg-type]


class Observer:
    """Asks constantly. Whoever has read of the n-th reload must be answered by version n, or a newer one."""

    def __init__(self, ostler: Ostler, clients: int = 3) -> None:
        self.answered = 0
        self.cut = 0
        """Kept connections that were closed under a request: any client asks again (RFC 9112, 9.3.1)."""
        self.faults: list[str] = []
        self._ostler = ostler
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._fresh) for _ in range(clients)]
        self._threads += [threading.Thread(target=self._kept) for _ in range(clients)]

    def __enter__(self) -> Observer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_answers(self, more: int) -> None:
        target = self.answered + more
        wait_until(lambda: self.answered >= target or self.faults, f"{more} more answers")

    def _told(self) -> int:
        return len(re.findall(RELOADING, self._ostler.log.text))

    def _check(self, told: int, body: str) -> None:
        number = int(body.split()[0].lstrip("v"))
        if number < told:
            self.faults.append(f"version {number} answered what was asked after reload {told}")
        self.answered += 1

    def _fresh(self) -> None:
        while not self._over.wait(0.001):
            told = self._told()
            try:
                self._check(told, get(self._ostler.port))
            except OSError as error:
                self.faults.append(f"fresh: {error!r}")
            except http.client.HTTPException as error:
                self.faults.append(f"fresh: {error!r}")

    def _kept(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._ostler.port, timeout=PATIENCE)
        used = False
        while not self._over.wait(0.001):
            told = self._told()
            try:
                connection.request("GET", "/")
                body = connection.getresponse().read().decode()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if used:
                    self.cut += 1
                else:
                    self.faults.append(f"kept: {error!r}")
                used = False
                continue
            used = True
            self._check(told, body)
        connection.close()


@pytest.mark.parametrize("args", [(), ("--workers", "3"), ("--loop", "asyncio", "--http", "h11")], ids=str)
def test_nothing_is_refused_and_nothing_answered_by_old_code_under_load(
    project: Path, args: tuple[str, ...]
) -> None:
    save(project, version("v0"))
    with begin(project, *args) as ostler:
        ostler.wait_ready(1)
        with Observer(ostler) as observer:
            for number in range(1, 6):
                observer.wait_answers(30)
                save(project, version(f"v{number}"))
                ostler.log.wait_for(RELOADING, count=number)
                wait_until(lambda n=number: get(ostler.port).startswith(f"v{n} "), "the new code")  # type: ignore[misc]
                assert not observer.faults
            observer.wait_answers(30)
        assert observer.faults == []
        assert ostler.log.text.count("Reloading...") == 5
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def test_whoever_has_read_of_the_reload_waits_for_the_new_code(project: Path) -> None:
    with begin(project) as ostler:
        ostler.wait_ready(1)
        for number in range(1, 4):
            save(project, "import time\ntime.sleep(0.5)  # in the app\n" + version(f"v{number}"))
            ostler.log.wait_for(RELOADING, count=number)
            assert get(ostler.port).startswith(f"v{number} ")


@pytest.mark.parametrize("path", ["/stream", "/slow?1000", "/block?1000"])
def test_a_request_that_does_not_end_holds_no_reload_up(project: Path, path: str) -> None:
    save(project, APP + STREAM)
    with begin(project) as ostler:
        ostler.wait_ready(1)
        with socket.create_connection(("127.0.0.1", ostler.port)) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            assert path != "/stream" or client.recv(100)
            saved = time.monotonic()
            save(project, version("second"))
            ostler.log.wait_for(RELOADING)
            assert get(ostler.port).startswith("second ")
            assert elapsed(saved) < 20
    assert "Traceback" not in ostler.log.text


def test_a_short_request_in_flight_is_finished_by_the_old_code(project: Path) -> None:
    with begin(project) as ostler:
        ostler.wait_ready(1)
        with socket.create_connection(("127.0.0.1", ostler.port), PATIENCE) as client:
            client.sendall(b"GET /slow?0.3 HTTP/1.1\r\nHost: test\r\n\r\n")
            get(ostler.port)  # it is in flight: whatever is asked later is answered
            save(project, version("second"))
            said = b"".join(iter(lambda: client.recv(1000), b""))
        assert said.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in said
        assert b"\r\n\r\none " in said
        assert get(ostler.port).startswith("second ")


@pytest.mark.parametrize("workers", [(), ("--workers", "3")], ids=str)
@pytest.mark.parametrize(
    "code", ["def broken(:\n", "raise ImportError('half done')\n", "import os\nos._exit(7)\n"]
)
def test_code_that_does_not_start_is_told_once_and_waited_for(
    project: Path, code: str, workers: tuple[str, ...]
) -> None:
    with begin(project, *workers) as ostler:
        ostler.wait_ready(3 if workers else 1)
        save(project, code)
        ostler.log.wait_for("waiting for a change of its files")
        with socket.create_connection(("127.0.0.1", ostler.port), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            save(project, version("mended"))
            assert b"\r\n\r\nmended " in b"".join(iter(lambda: client.recv(1000), b""))
        assert ostler.log.text.count("Traceback") == ("_exit" not in code)
        assert ostler.log.text.count("waiting for a change") == 1
        assert ostler.stop() == 0


def test_code_that_does_not_start_at_first_is_waited_for_as_well(project: Path) -> None:
    save(project, "def broken(:\n")
    with begin(project) as ostler:
        ostler.log.wait_for("SyntaxError.*waiting for a change of its files")
        save(project, version("mended"))
        assert get(ostler.port).startswith("mended ")
        save(project, "raise RuntimeError\n")
        ostler.log.wait_for("waiting for a change", count=2)
        ostler.send(signal.SIGINT)
        assert ostler.wait() == 0


def test_an_application_that_dies_is_started_again_without_a_change(project: Path) -> None:
    with begin(project) as ostler:
        ostler.wait_ready(1)
        [worker] = ostler.workers()
        os.kill(worker, signal.SIGKILL)
        assert get(ostler.port).startswith("one ")
        ostler.log.wait_for(r"was killed by SIGKILL \(not sent by ostler\).*next try in 0.5 s")


def vim(project: Path, source: str) -> None:
    """Save as vim does: the old file moved aside, the new one written, flushed, and the backup removed."""
    (project / "4913").touch()
    (project / "4913").unlink()
    (project / "main.py").rename(project / "main.py~")
    with (project / "main.py").open("w") as file:
        file.write(source)
        file.flush()
        os.fsync(file.fileno())
    (project / "main.py").chmod(0o644)
    (project / "main.py~").unlink()


def pycharm(project: Path, source: str) -> None:
    """Save as PyCharm does: written beside, both renamed, the old one removed."""
    (project / "main.py___jb_tmp___").write_text(source)
    (project / "main.py").rename(project / "main.py___jb_old___")
    (project / "main.py___jb_tmp___").rename(project / "main.py")
    (project / "main.py___jb_old___").unlink()


@pytest.mark.parametrize("editor", [vim, pycharm, save])
def test_an_editors_save_is_one_reload(project: Path, editor: object) -> None:
    with begin(project) as ostler:
        ostler.wait_ready(1)
        for number in range(1, 4):
            editor(project, version(f"v{number}"))  # type: ignore[operator]
            ostler.log.wait_for("is ready", count=number + 1)
            assert get(ostler.port).startswith(f"v{number} ")
        assert ostler.log.text.count("Reloading...") == 3


def test_two_saves_of_one_length_within_a_second_both_count(project: Path) -> None:
    app = APP.replace('VERSION = "one"', "from part import VERSION")
    save(project, app)
    save(project, "VERSION = 'v0'\n", "part.py")
    with begin(project, env={"PYTHONDONTWRITEBYTECODE": ""}) as ostler:
        ostler.wait_ready(1)
        for number in range(1, 7):
            save(project, f"VERSION = 'v{number}'\n", "part.py")
            ostler.log.wait_for(RELOADING, count=number)
            assert get(ostler.port).startswith(f"v{number} ")


def test_old_sources_have_their_bytecode_cached(project: Path) -> None:
    save(project, "VERSION = 'v0'\n", "part.py")
    os.utime(project / "part.py", (1e9, 1e9))
    save(project, APP.replace('VERSION = "one"', "from part import VERSION"))
    with begin(project, env={"PYTHONDONTWRITEBYTECODE": ""}) as ostler:
        ostler.wait_ready(1)
        cached = {path.name.partition(".")[0] for path in (project / "__pycache__").iterdir()}
        assert cached == {"part"}


def test_what_counts_is_for_the_settings_to_say(project: Path) -> None:
    for name in ("page", "tests", ".venv"):
        (project / name).mkdir()
    patterns = ["--reload-include", "*.html", "--reload-exclude", "tests", "--reload-exclude", "*_pb2.py"]
    with begin(project, *patterns) as ostler:
        ostler.wait_ready(1)
        for name in ("notes.txt", "tests/some.py", "page/x_pb2.py", ".venv/lib.py", ".hidden.py", "~a.py"):
            (project / name).write_text("pass")
        (project / "page" / "index.html").write_text("<p>")
        assert ostler.log.wait_for(RELOADING)[0].endswith("in 'page/index.html'. Reloading...")
        assert ostler.log.text.count("Reloading...") == 1


def test_a_directory_that_is_replaced_is_watched_again(project: Path) -> None:
    (project / "app").mkdir()
    save(project / "app", version("first"))
    with begin(project, "--app-dir", "app", "--reload-dir", "app") as ostler:
        ostler.wait_ready(1)
        (project / "app").rename(project / "old")
        ostler.log.wait_for("is gone: watched again once it is back")
        (project / "app").mkdir()
        save(project / "app", version("second"))
        wait_until(lambda: get(ostler.port).startswith("second "), "the new code")
        save(project / "app", version("third"))
        wait_until(lambda: get(ostler.port).startswith("third "), "the newest code")


def test_files_of_settings_count_and_are_read_again(project: Path) -> None:
    (project / "src").mkdir()
    save(project / "src", APP.replace('VERSION = "one"', "VERSION = os.environ['WHO']"))
    (project / "o.toml").write_text("header = ['X-From: one']\n")
    (project / "o.env").write_text("WHO=one\n")
    files = ["--config", "o.toml", "--env-file", "o.env", "--app-dir", "src", "--reload-dir", "src"]
    with begin(project, *files) as ostler:
        ostler.wait_ready(1)
        save(project, "WHO=second\n", "o.env")
        wait_until(lambda: get(ostler.port).startswith("second "), "the new variable")
        save(project, "header = ['X-From: second', nonsense]\n", "o.toml")
        ostler.log.wait_for("Reload: the settings stay as they are: o.toml: not valid TOML")
        save(project, "header = ['X-From: second']\n", "o.toml")

        def header() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", ostler.port, timeout=PATIENCE)
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.headers["x-from"] == "second"

        wait_until(header, "the new header")


def test_a_log_configuration_counts_too_and_a_bad_one_changes_nothing(project: Path) -> None:
    (project / "src").mkdir()
    save(project / "src", APP)
    lines = '{"version": 1, "formatters": {"f": {"format": "%s %%(message)s"}}, "handlers": {"h": {"class": '
    lines += (
        '"logging.StreamHandler", "formatter": "f"}}, "loggers": {"ostler": {"handlers": ["h"], "level": '
    )
    lines += '"INFO"}}}'
    save(project, lines % "first", "log.json")
    with begin(project, "--log-config", "log.json", "--app-dir", "src", "--reload-dir", "src") as ostler:
        ostler.log.wait_for("first Application startup complete")
        save(project, lines % "second", "log.json")
        ostler.log.wait_for("second Application startup complete")
        save(project, "{", "log.json")
        ostler.log.wait_for("second Reload: the settings stay as they are: log.json: not valid JSON")
        ostler.log.wait_for("second Application startup complete", count=2)


def test_the_operators_signals_keep_working(project: Path) -> None:
    with begin(project) as ostler:
        ostler.wait_ready(1)
        ostler.send(signal.SIGTTIN)
        ostler.wait_ready(2)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        save(project, version("second"))
        ostler.log.wait_for(RELOADING)
        assert get(ostler.port).startswith("second ")
        ostler.wait_ready(6)
        ostler.send(signal.SIGTTOU)
        wait_until(lambda: len(ostler.workers()) == 1, "one worker is left")
        assert get(ostler.port).startswith("second ")
        save(project, "raise RuntimeError\n")
        ostler.log.wait_for("waiting for a change")
        save(project, version("third"), "other.txt")
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("waiting for a change", count=2)
        assert ostler.stop() == 0


def test_a_storm_of_changes_ends_with_the_last_of_them(project: Path) -> None:
    with begin(project) as ostler:
        ostler.wait_ready(1)
        for number in range(60):
            save(project, version(f"v{number}"))
            get(ostler.port)
        wait_until(lambda: get(ostler.port).startswith("v59 "), "the last version")
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def refused(project: Path, *args: str) -> Iterator[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ostler", "main:app", *args],
        cwd=project,
        env=environment(None),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    yield str(done.returncode)
    yield from done.stderr.splitlines()


def test_a_directory_that_is_not_there_is_refused(project: Path) -> None:
    assert list(refused(project, "--reload", "--reload-dir", "none")) == [
        "2",
        "Error: reload_dir is 'none': there is no such directory to watch",
    ]


def test_settings_of_a_reload_do_nothing_without_it_and_ostler_says_so(project: Path) -> None:
    code, warning, _ = refused(project, "--reload-dir", "none", "--uds", "no/place")
    assert code == "4"
    assert warning == "Warning: reload_dir from flag --reload-dir does nothing without --reload"
