"""Settings of a whole server: proxy headers, the event loop, the application directory, env files."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.clients import get
from tests.live.harness import Ostler, both

INSPECTED = """
import asyncio
import json
import os
import sys

AT_IMPORT = type(asyncio.get_event_loop()).__module__


async def app(scope, receive, send):
    loop = type(asyncio.get_running_loop())
    seen = {
        "client": scope["client"][0],
        "scheme": scope["scheme"],
        "loop": f"{loop.__module__}.{loop.__qualname__}",
        "at import": AT_IMPORT,
        "variable": os.environ.get("GREETING"),
        "arbiter": "ostler.supervisor.arbiter" in sys.modules,
    }
    body = json.dumps(seen).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


class MyLoop(asyncio.SelectorEventLoop):
    pass
"""


@pytest.fixture
def inspected(project: Path) -> Path:
    (project / "main.py").write_text(INSPECTED)
    return project


def seen(port: int, **headers: str) -> dict[str, Any]:
    """Return what the application sees of a request with these headers."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = httpx.get(f"http://127.0.0.1:{port}/", headers=named, trust_env=False)
    found: dict[str, Any] = json.loads(answer.text)
    return found


FORWARDED = {"x_forwarded_for": "6.6.6.6", "x_forwarded_proto": "https"}


@both
def test_without_proxy_headers_forwarded_fields_are_ignored(inspected: Path, mode: list[str]) -> None:
    args = ["--no-proxy-headers", "--forwarded-allow-ips", "*"]
    with Ostler(inspected, "main:app", "--port", "0", *args, *mode) as ostler:
        found = seen(ostler.port, **FORWARDED)
        assert (found["client"], found["scheme"]) == ("127.0.0.1", "http")


@both
def test_forwarded_fields_of_a_peer_outside_the_list_are_ignored(inspected: Path, mode: list[str]) -> None:
    args = ["--forwarded-allow-ips", "10.0.0.0/8"]
    with Ostler(inspected, "main:app", "--port", "0", *args, *mode) as ostler:
        found = seen(ostler.port, **FORWARDED)
        assert (found["client"], found["scheme"]) == ("127.0.0.1", "http")


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("asyncio", r"asyncio\.unix_events\._UnixSelectorEventLoop"),
        ("uvloop", r"uvloop\.Loop"),
        ("main_loop:MyLoop", r"main_loop\.MyLoop"),
    ],
)
@both
def test_the_application_runs_and_is_imported_on_the_loop_that_was_asked_for(
    inspected: Path, mode: list[str], asked: str, expected: str
) -> None:
    source = "import asyncio\n\nclass MyLoop(asyncio.SelectorEventLoop): ...\n"
    (inspected / "src").mkdir()
    (inspected / "src" / "main_loop.py").write_text(source)
    shutil.move(inspected / "main.py", inspected / "src" / "main.py")
    args = ["--app-dir", "src", "--loop", asked]
    with Ostler(inspected, "main:app", "--port", "0", *args, *mode) as ostler:
        found = seen(ostler.port)
        assert re.fullmatch(expected, found["loop"])
        assert found["loop"].startswith(found["at import"])
        assert ostler.stop() == 0


@both
def test_a_loop_that_cannot_be_created_is_named_on_the_last_line_with_exit_code_3(
    project: Path, mode: list[str]
) -> None:
    with Ostler(project, "main:app", "--port", "0", "--loop", "main:nothing", *mode) as ostler:
        assert ostler.wait() == 3
    last = ostler.log.text.splitlines()[-1]
    assert last == 'Error: --loop main:nothing: Attribute "nothing" not found in module "main"'


@both
@pytest.mark.parametrize("absolute", [False, True], ids=["relative", "absolute"])
def test_the_application_is_found_in_app_dir(project: Path, mode: list[str], absolute: bool) -> None:
    source = project / "src" / "inner"
    source.mkdir(parents=True)
    text = (project / "main.py").read_text()
    (source / "main.py").write_text(text.replace('VERSION = "one"', "from beside import VERSION"))
    (source / "beside.py").write_text('VERSION = "beside"\n')
    directory = str(source) if absolute else "src/inner"
    with Ostler(project, "main:app", "--port", "0", "--app-dir", directory, *mode) as ostler:
        assert get(ostler.port).text.startswith("beside ")


@both
def test_the_application_can_be_named_by_a_variable_alone(project: Path, mode: list[str]) -> None:
    with Ostler(project, "--port", "0", *mode, env={"OSTLER_APP": "main:app"}) as ostler:
        assert get(ostler.port).text.startswith("one ")


@both
def test_the_application_has_the_variables_of_an_env_file_and_the_log_names_it(
    inspected: Path, mode: list[str]
) -> None:
    (inspected / ".env").write_text("GREETING=hello\n")
    with Ostler(inspected, "main:app", "--port", "0", "--env-file", ".env", *mode) as ostler:
        assert seen(ostler.port)["variable"] == "hello"
        ostler.log.wait_for(r"INFO: +Loading environment from '\.env'$")


def test_workers_are_spawned_and_not_forked(inspected: Path) -> None:
    """Modules that the arbiter has loaded are not loaded in a worker."""
    with Ostler(inspected, "main:app", "--port", "0", "--workers", "1") as ostler:
        assert seen(ostler.port)["arbiter"] is False
