"""--reload: requests during a restart wait, and the new code answers them."""

from __future__ import annotations

import http.client
import os
import re
import signal
import threading
import time
import venv
from pathlib import Path
from typing import Any

import pytest

from tests.live.clients import open_get, read_to_end
from tests.live.harness import APP, PATIENCE, Ostler, app_version, elapsed, wait_until

RELOADING = r"(?:WatchFiles|StatReload) detected changes in .*Reloading\.\.\."

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


def save(project: Path, source: str, name: str = "main.py") -> None:
    """Write a file as a careful editor does: a new file that is then renamed."""
    beside = project / f"{name}.tmp"
    beside.write_text(source)
    beside.rename(project / name)


def get_text(port: int, path: str = "/") -> str:
    """Return the body of a response on a new connection. Raises OSError or HTTPException."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def reloading(project: Path, *args: str, **more: Any) -> Ostler:
    """Start `ostler main:app --reload ARGS`."""
    return Ostler(project, "main:app", "--port", "0", "--reload", *args, **more)


class Observer:
    """Sends requests constantly, and checks the version that answers.

    A request that is sent after the n-th reload was logged must be answered by version n or a newer one.
    """

    def __init__(self, ostler: Ostler, clients: int = 3) -> None:
        self.answered = 0
        self.cut = 0
        """Kept connections that were closed under a request: clients repeat it (RFC 9112, 9.3.1)."""
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

    def _logged_reloads(self) -> int:
        return len(re.findall(RELOADING, self._ostler.log.text))

    def _check(self, reloads: int, body: str) -> None:
        number = int(body.split()[0].lstrip("v"))
        if number < reloads:
            self.faults.append(f"version {number} answered a request that was sent after reload {reloads}")
        self.answered += 1

    def _fresh(self) -> None:
        while not self._over.wait(0.001):
            reloads = self._logged_reloads()
            try:
                self._check(reloads, get_text(self._ostler.port))
            except OSError as error:
                self.faults.append(f"fresh: {error!r}")
            except http.client.HTTPException as error:
                self.faults.append(f"fresh: {error!r}")

    def _kept(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._ostler.port, timeout=PATIENCE)
        used = False
        while not self._over.wait(0.001):
            reloads = self._logged_reloads()
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
            self._check(reloads, body)
        connection.close()


@pytest.mark.parametrize("args", [(), ("--workers", "3"), ("--loop", "asyncio", "--http", "h11")], ids=str)
def test_under_load_no_request_is_refused_or_answered_by_old_code(
    project: Path, args: tuple[str, ...]
) -> None:
    save(project, app_version("v0"))
    with reloading(project, *args) as ostler:
        ostler.wait_ready(1)
        with Observer(ostler) as observer:
            for number in range(1, 6):
                observer.wait_answers(30)
                save(project, app_version(f"v{number}"))
                ostler.log.wait_for(RELOADING, count=number)
                wait_until(lambda n=number: get_text(ostler.port).startswith(f"v{n} "), "the new code")  # type: ignore[misc]
                assert not observer.faults
            observer.wait_answers(30)
        assert observer.faults == []
        assert ostler.log.text.count("Reloading...") == 5
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def test_a_request_after_the_reload_is_logged_waits_for_the_new_code(project: Path) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        for number in range(1, 4):
            save(project, "import time\ntime.sleep(0.5)  # in the app\n" + app_version(f"v{number}"))
            ostler.log.wait_for(RELOADING, count=number)
            assert get_text(ostler.port).startswith(f"v{number} ")


@pytest.mark.parametrize("path", ["/stream", "/slow?1000", "/block?1000"])
def test_a_request_that_does_not_end_does_not_delay_a_reload(project: Path, path: str) -> None:
    save(project, APP + STREAM)
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        with open_get(ostler.port, path) as client:
            assert path != "/stream" or client.recv(100)
            saved = time.monotonic()
            save(project, app_version("second"))
            ostler.log.wait_for(RELOADING)
            assert get_text(ostler.port).startswith("second ")
            assert elapsed(saved) < 20
    assert "Traceback" not in ostler.log.text


def test_a_short_request_in_flight_is_finished_by_the_old_code(project: Path) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        with open_get(ostler.port, "/slow?0.3") as client:
            get_text(ostler.port)  # once a later request is answered, the first one is in flight
            save(project, app_version("second"))
            answer = read_to_end(client)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in answer
        assert b"\r\n\r\none " in answer
        assert get_text(ostler.port).startswith("second ")


@pytest.mark.parametrize("workers", [(), ("--workers", "3")], ids=str)
@pytest.mark.parametrize(
    "code", ["def broken(:\n", "raise ImportError('half done')\n", "import os\nos._exit(7)\n"]
)
def test_new_code_that_does_not_start_is_logged_once_and_ostler_waits_for_a_change(
    project: Path, code: str, workers: tuple[str, ...]
) -> None:
    with reloading(project, *workers) as ostler:
        ostler.wait_ready(3 if workers else 1)
        save(project, code)
        ostler.log.wait_for("waiting for a change of its files")
        with open_get(ostler.port, close=True) as client:
            save(project, app_version("mended"))
            assert b"\r\n\r\nmended " in read_to_end(client)
        assert ostler.log.text.count("The application could not be imported:") == ("_exit" not in code)
        # A syntax error has no frame of the application: the error itself shows the place.
        assert ostler.log.text.count("Traceback") == ("raise" in code)
        assert ostler.log.text.count("    def broken(:") == ("broken" in code)
        assert ostler.log.text.count("waiting for a change") == 1
        assert ostler.stop() == 0


def test_first_code_that_does_not_start_is_logged_and_ostler_waits_for_a_change(project: Path) -> None:
    save(project, "def broken(:\n")
    with reloading(project) as ostler:
        ostler.log.wait_for("SyntaxError.*waiting for a change of its files")
        save(project, app_version("mended"))
        assert get_text(ostler.port).startswith("mended ")
        save(project, "raise RuntimeError\n")
        ostler.log.wait_for("waiting for a change", count=2)
        ostler.send(signal.SIGINT)
        assert ostler.wait() == 0


def test_environments_that_are_made_beside_the_server_cause_no_reload(project: Path) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        for name in ("venv", "mine"):
            venv.create(project / name)
            library = project / name / "lib" / "library"
            library.mkdir(parents=True, exist_ok=True)
            (library / "a.py").touch()
        (project / "web" / "node_modules").mkdir(parents=True)
        (project / "web" / "node_modules" / "a.py").touch()
        save(project, app_version("second"))
        ostler.log.wait_for(RELOADING)
        assert get_text(ostler.port).startswith("second ")
        (project / "mine" / "lib" / "library" / "b.py").touch()
        save(project, app_version("the third"))
        ostler.log.wait_for(RELOADING, count=2)
        assert get_text(ostler.port).startswith("the third ")
        lines = re.findall(r"detected changes in (.*)\. Reloading", ostler.log.text)
        assert lines == ["'main.py'"] * 2


def test_an_application_that_dies_is_started_again_without_a_change(project: Path) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        [worker] = ostler.workers()
        os.kill(worker, signal.SIGKILL)
        assert get_text(ostler.port).startswith("one ")
        ostler.log.wait_for(r"was killed by SIGKILL \(not sent by ostler\).*: successor starts now")


def vim(project: Path, source: str) -> None:
    """Save as vim does: rename the old file, write and flush the new one, and remove the old one."""
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
    """Save as PyCharm does: write a temporary file, rename both, and remove the old one."""
    (project / "main.py___jb_tmp___").write_text(source)
    (project / "main.py").rename(project / "main.py___jb_old___")
    (project / "main.py___jb_tmp___").rename(project / "main.py")
    (project / "main.py___jb_old___").unlink()


@pytest.mark.parametrize("editor", [vim, pycharm, save])
def test_a_save_by_an_editor_causes_one_reload(project: Path, editor: object) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        for number in range(1, 4):
            editor(project, app_version(f"v{number}"))  # type: ignore[operator]
            ostler.log.wait_for("is ready", count=number + 1)
            assert get_text(ostler.port).startswith(f"v{number} ")
        assert ostler.log.text.count("Reloading...") == 3


def test_two_saves_of_equal_length_within_a_second_both_take_effect(project: Path) -> None:
    app = APP.replace('VERSION = "one"', "from part import VERSION")
    save(project, app)
    save(project, "VERSION = 'v0'\n", "part.py")
    with reloading(project, env={"PYTHONDONTWRITEBYTECODE": ""}) as ostler:
        ostler.wait_ready(1)
        for number in range(1, 7):
            save(project, f"VERSION = 'v{number}'\n", "part.py")
            ostler.log.wait_for(RELOADING, count=number)
            assert get_text(ostler.port).startswith(f"v{number} ")


def test_bytecode_is_cached_only_of_sources_that_are_not_new(project: Path) -> None:
    save(project, "VERSION = 'v0'\n", "part.py")
    os.utime(project / "part.py", (1e9, 1e9))
    save(project, APP.replace('VERSION = "one"', "from part import VERSION"))
    with reloading(project, env={"PYTHONDONTWRITEBYTECODE": ""}) as ostler:
        ostler.wait_ready(1)
        cached = {path.name.partition(".")[0] for path in (project / "__pycache__").iterdir()}
        assert cached == {"part"}


def test_reload_include_and_exclude_say_which_files_cause_a_reload(project: Path) -> None:
    for name in ("page", "tests", ".venv"):
        (project / name).mkdir()
    patterns = ["--reload-include", "*.html", "--reload-exclude", "tests", "--reload-exclude", "*_pb2.py"]
    with reloading(project, *patterns) as ostler:
        ostler.wait_ready(1)
        for name in ("notes.txt", "tests/some.py", "page/x_pb2.py", ".venv/lib.py", ".hidden.py", "~a.py"):
            (project / name).write_text("pass")
        (project / "page" / "index.html").write_text("<p>")
        assert ostler.log.wait_for(RELOADING)[0].endswith("in 'page/index.html'. Reloading...")
        assert ostler.log.text.count("Reloading...") == 1


def test_a_directory_that_is_replaced_is_watched_again(project: Path) -> None:
    (project / "app").mkdir()
    save(project / "app", app_version("first"))
    with reloading(project, "--app-dir", "app", "--reload-dir", "app") as ostler:
        ostler.wait_ready(1)
        (project / "app").rename(project / "old")
        ostler.log.wait_for("is gone: watched again once it is back")
        (project / "app").mkdir()
        save(project / "app", app_version("second"))
        wait_until(lambda: get_text(ostler.port).startswith("second "), "the new code answers")
        save(project / "app", app_version("third"))
        wait_until(lambda: get_text(ostler.port).startswith("third "), "the newest code answers")


def test_a_change_of_a_settings_file_causes_a_reload_that_reads_it_again(project: Path) -> None:
    (project / "src").mkdir()
    save(project / "src", APP.replace('VERSION = "one"', "VERSION = os.environ['NAME']"))
    (project / "o.toml").write_text("header = ['X-From: one']\n")
    (project / "o.env").write_text("NAME=one\n")
    files = ["--config", "o.toml", "--env-file", "o.env", "--app-dir", "src", "--reload-dir", "src"]
    with reloading(project, *files) as ostler:
        ostler.wait_ready(1)
        save(project, "NAME=second\n", "o.env")
        wait_until(lambda: get_text(ostler.port).startswith("second "), "the new variable takes effect")
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

        wait_until(header, "the new header is sent")


def test_a_change_of_the_log_configuration_causes_a_reload_and_a_wrong_one_changes_nothing(
    project: Path,
) -> None:
    (project / "src").mkdir()
    save(project / "src", APP)
    lines = '{"version": 1, "formatters": {"f": {"format": "%s %%(message)s"}}, "handlers": {"h": {"class": '
    lines += (
        '"logging.StreamHandler", "formatter": "f"}}, "loggers": {"ostler": {"handlers": ["h"], "level": '
    )
    lines += '"INFO"}}}'
    save(project, lines % "first", "log.json")
    with reloading(project, "--log-config", "log.json", "--app-dir", "src", "--reload-dir", "src") as ostler:
        ostler.log.wait_for("first Application startup complete")
        save(project, lines % "second", "log.json")
        ostler.log.wait_for("second Application startup complete")
        save(project, "{", "log.json")
        ostler.log.wait_for("second Reload: the settings stay as they are: log.json: not valid JSON")
        ostler.log.wait_for("second Application startup complete", count=2)


def test_signals_that_scale_and_roll_work_under_reload(project: Path) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        ostler.send(signal.SIGTTIN)
        ostler.wait_ready(2)
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("Rolling restart to generation 2 complete")
        save(project, app_version("second"))
        ostler.log.wait_for(RELOADING)
        assert get_text(ostler.port).startswith("second ")
        ostler.wait_ready(6)
        ostler.send(signal.SIGTTOU)
        ostler.wait_worker_count(1)
        assert get_text(ostler.port).startswith("second ")
        save(project, "raise RuntimeError\n")
        ostler.log.wait_for("waiting for a change")
        save(project, app_version("third"), "other.txt")
        ostler.send(signal.SIGHUP)
        ostler.log.wait_for("waiting for a change", count=2)
        assert ostler.stop() == 0


def test_after_many_changes_in_a_row_the_last_version_serves(project: Path) -> None:
    with reloading(project) as ostler:
        ostler.wait_ready(1)
        for number in range(60):
            save(project, app_version(f"v{number}"))
            get_text(ostler.port)
        wait_until(lambda: get_text(ostler.port).startswith("v59 "), "the last version answers")
        assert ostler.stop() == 0
    assert "Traceback" not in ostler.log.text


def refusal(project: Path, *args: str) -> list[str]:
    """Run ostler until it ends, and return its exit code and the lines that it has logged."""
    with Ostler(project, "main:app", *args) as ostler:
        code = ostler.wait()
    return [str(code), *ostler.log.text.splitlines()]


def test_a_directory_to_watch_that_does_not_exist_is_refused(project: Path) -> None:
    assert refusal(project, "--reload", "--reload-dir", "none") == [
        "2",
        "Error: reload_dir is 'none': there is no such directory to watch",
    ]


def test_reload_settings_without_reload_are_warned_of(project: Path) -> None:
    code, warning, _ = refusal(project, "--reload-dir", "none", "--uds", "no/place")
    assert code == "4"
    assert warning == "Warning: reload_dir from flag --reload-dir does nothing without --reload"
